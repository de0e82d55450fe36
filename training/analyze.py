"""What the fitted regressor looks at: gradient importance of heads and layers, entropy gaps, and the head file that
ACS-Free reads (paper section 4.3, appendix F)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from acs_core.heads import Head, HeadFile
from acs_core.identity import ModelIdentity
from acs_core.regressor import AttentionIoURegressor
from acs_core.types import COORDINATES
from training.errors import DataError
from training.store import Collection


@dataclass(frozen=True)
class AnalysisConfig:
    """``heads`` per coordinate (n of section 4.4); IoU groups of section 4.3 (high: above; low: above 0 up to);
    ``layers`` is how many localization-critical layers are kept (None: a third of all, rounded up);
    ``restrict`` keeps the heads within them."""

    heads: int = 3
    high_iou: float = 0.7
    low_iou: float = 0.3
    layers: int | None = None
    restrict: bool = True
    min_group: int = 20


@dataclass(frozen=True)
class Analysis:
    """``importance`` (4, L, K) of equation 2, averaged over candidates; ``layers`` from the most important on;
    ``entropy_gap`` (4, L, K) in nats; ``group_sizes`` of the high and low group."""

    importance: np.ndarray
    layers: tuple[int, ...]
    entropy_gap: np.ndarray
    group_sizes: tuple[int, int]


def gradient_importance(
    regressor: AttentionIoURegressor, data: Collection, index: np.ndarray, batch: int = 64
) -> np.ndarray:
    """Equation 2 for the candidates ``index``: (4, L, K), the mean over candidates of the largest absolute gradient
    of the squared error in each map."""
    regressor.eval()
    total = np.zeros(data.maps.shape[1:4])
    for start in range(0, len(index), batch):
        part = index[start : start + batch]
        maps = torch.from_numpy(data.maps[part].astype(np.float32)).requires_grad_()
        # the sum keeps every candidate's own gradient; a mean would scale it with the batch
        loss = F.mse_loss(regressor(maps), torch.from_numpy(data.iou[part]), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, maps)
        total += gradient.abs().amax(dim=(-2, -1)).sum(dim=0).numpy()  # (B, 4, L, K, h, w) -> (4, L, K)
    return total / max(1, len(index))


def analyze(
    regressor: AttentionIoURegressor, data: Collection, index: np.ndarray, config: AnalysisConfig | None = None
) -> Analysis:
    """Analyses the candidates ``index`` (the validation images, as in section 5.1).

    Raises:
        DataError: a group of IoU has too few candidates for its mean entropy to say anything.
    """
    config = config or AnalysisConfig()
    importance = gradient_importance(regressor, data, index)
    per_layer = importance.mean(axis=(0, 2))  # I^(l), averaged over the coordinates
    count = config.layers or math.ceil(importance.shape[1] / 3)
    layers = tuple(int(v) for v in np.argsort(-per_layer, kind="stable")[:count])
    iou, entropy = data.iou[index], data.entropy[index]  # (C,), (C, 4, L, K)
    high, low = iou > config.high_iou, (iou > 0) & (iou <= config.low_iou)
    sizes = int(high.sum()), int(low.sum())
    if min(sizes) < config.min_group:
        raise DataError(
            f"{sizes[0]} candidates have IoU above {config.high_iou} and {sizes[1]} have IoU in (0, {config.low_iou}]; "
            f"{config.min_group} of each are needed: collect more pairs"
        )
    gap = np.nanmean(entropy[low], axis=0) - np.nanmean(entropy[high], axis=0)
    return Analysis(importance, layers, gap, sizes)


def head_file(
    analysis: Analysis, identity: ModelIdentity, made_by: str, config: AnalysisConfig | None = None
) -> HeadFile:
    """The ``config.heads`` heads of largest entropy gap for each coordinate."""
    config = config or AnalysisConfig()
    chosen = []
    for c in range(len(COORDINATES)):
        gap = analysis.entropy_gap[c].copy()
        if config.restrict:
            outside = [layer for layer in range(len(gap)) if layer not in analysis.layers]
            gap[outside] = -np.inf
        best = np.argsort(-gap, axis=None, kind="stable")[: config.heads]
        pairs = (np.unravel_index(int(flat), gap.shape) for flat in best)
        chosen.append(tuple(Head(int(layer), int(head), round(float(gap[layer, head]), 5)) for layer, head in pairs))
    return HeadFile(identity, "heads", tuple(chosen), tuple(sorted(analysis.layers)), made_by)
