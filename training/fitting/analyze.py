"""Analysis of a fitted regressor: gradient importance of heads and layers, entropies by IoU group, and the head file of
ACS-Free (paper section 4.3, appendix F)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from acs_core.artifacts.heads import Head, HeadFile
from acs_core.artifacts.identity import ModelIdentity
from acs_core.selection.regressor import AttentionIoURegressor
from acs_core.types import COORDINATES
from training.collection.part_arrays import decode_on_device
from training.collection.store import Collection
from training.errors import DataError
from training.settings import AnalysisConfig

GROUPS = ("high", "low", "zero")


@dataclass(frozen=True)
class Analysis:
    """Result of :func:`analyze`.

    The bootstrap draws images. A head that was chosen by chance is chosen in few draws.

    Attributes:
        importance: (4, L, K) gradient importance of equation 2, averaged over candidates.
        layers: the critical layers, the most important first.
        entropy: (3, 4, L, K) mean entropy in nats of the IoU groups high, low and zero; NaN for an empty zero group.
        entropy_gap: (4, L, K) entropy of the low group minus that of the high group, in nats.
        group_sizes: number of candidates of the three groups.
        gap_interval: (2, 4, L, K) 2.5 and 97.5 % points of the gap over the bootstrap draws.
        chosen_share: (4, L, K) share of draws in which a head is among the best of the critical layers.
        chosen_share_anywhere: (4, L, K) share of draws in which a head is among the best of all layers.
    """

    importance: np.ndarray
    layers: tuple[int, ...]
    entropy: np.ndarray
    entropy_gap: np.ndarray
    group_sizes: tuple[int, int, int]
    gap_interval: np.ndarray
    chosen_share: np.ndarray
    chosen_share_anywhere: np.ndarray

    @property
    def layer_ranking(self) -> tuple[int, ...]:
        """All layers, the most important first (table 1)."""
        return tuple(int(v) for v in np.argsort(-self.importance.mean(axis=(0, 2)), kind="stable"))

    def to_dict(self, config: AnalysisConfig) -> dict[str, Any]:
        """Return the analysis as JSON values, for ``analysis.json``. Layers and heads are 0-based."""

        def listed(values: np.ndarray) -> Any:
            return np.where(np.isfinite(values), values.round(6), None).tolist()  # type: ignore[call-overload]

        best = {}
        for where, restrict in (("critical", True), ("anywhere", False)):
            share = self.chosen_share if restrict else self.chosen_share_anywhere
            best[where] = {
                name: [
                    {
                        "layer": layer,
                        "head": head,
                        "entropy_gap": round(float(self.entropy_gap[c, layer, head]), 5),
                        "interval": self.gap_interval[:, c, layer, head].round(5).tolist(),
                        "chosen_share": round(float(share[c, layer, head]), 3),
                    }
                    for layer, head in best_heads(self.entropy_gap[c], config.heads, self.layers if restrict else None)
                ]
                for c, name in enumerate(COORDINATES)
            }
        return {
            "coordinates": list(COORDINATES),
            "layer_ranking": list(self.layer_ranking),
            "critical_layers": list(self.layers),
            "group_sizes": dict(zip(GROUPS, self.group_sizes, strict=True)),
            "thresholds": {"high_iou": config.high_iou, "low_iou": config.low_iou},
            "bootstrap_draws": config.draws,
            "best_heads": best,
            "layer_importance": listed(self.importance.mean(axis=2)),
            "head_importance": listed(self.importance),
            "entropy": dict(zip(GROUPS, (listed(e) for e in self.entropy), strict=True)),
            "entropy_gap": listed(self.entropy_gap),
        }


def gradient_importance(
    regressor: AttentionIoURegressor,
    data: Collection,
    index: np.ndarray,
    batch: int = 64,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """Compute equation 2 for the candidates ``index``: the largest absolute gradient of the squared error in each map,
    averaged over candidates.

    Returns:
        (4, L, K) importances.
    """
    regressor.eval()
    device = next(regressor.parameters()).device
    total = np.zeros(data.maps.shape[1:4])
    for start in range(0, len(index), batch):
        part = index[start : start + batch]
        codes, unit = (torch.from_numpy(a).to(device) for a in data.maps.coded(part))
        maps = decode_on_device(codes, unit).requires_grad_()
        # a sum leaves each candidate's gradient independent of the batch size; a mean would divide it
        loss = F.mse_loss(regressor(maps), torch.from_numpy(data.iou[part]).to(device), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, maps)
        total += gradient.abs().amax(dim=(-2, -1)).sum(dim=0).cpu().numpy()  # (B, 4, L, K, h, w) -> (4, L, K)
        progress(min(start + batch, len(index)), len(index))
    return total / max(1, len(index))


def analyze(
    regressor: AttentionIoURegressor,
    data: Collection,
    index: np.ndarray,
    config: AnalysisConfig | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Analysis:
    """Analyse the candidates ``index`` (those of the validation images, as in section 5.1).

    Raises:
        DataError: an IoU group has too few candidates for a meaningful mean, or the thresholds are invalid.
    """
    config = config or AnalysisConfig()
    sums, counts, sizes = group_entropies(data, index, config)
    importance = gradient_importance(regressor, data, index, progress=progress)
    count = config.layers or math.ceil(importance.shape[1] / 3)
    layers = tuple(int(v) for v in np.argsort(-importance.mean(axis=(0, 2)), kind="stable")[:count])
    entropy = _mean(sums.sum(axis=0), counts.sum(axis=0))
    draws = _draws(sums, counts, config)  # (D, 4, L, K)
    chosen = [_chosen_share(draws, config.heads, keep) for keep in (layers, None)]
    interval = np.percentile(draws, [2.5, 97.5], axis=0)
    return Analysis(importance, layers, entropy, entropy[1] - entropy[0], sizes, interval, *chosen)


def group_entropies(
    data: Collection, index: np.ndarray, config: AnalysisConfig
) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int]]:
    """Sum the entropies of the candidates ``index`` per image and IoU group.

    Returns:
        Sums of entropies (I, 3, 4, L, K) in nats, numbers of candidates (I, 3), and the sizes of the groups.

    Raises:
        DataError: an IoU group has too few candidates for a meaningful mean, or the thresholds are invalid.
    """
    high, low, zero = group_sizes(data.iou[index], config)
    if min(high, low) < config.min_group:
        raise DataError(
            f"{high} candidates have IoU above {config.high_iou} and {low} have IoU in (0, {config.low_iou}]; "
            f"{config.min_group} of each are needed: collect more pairs"
        )
    sums, counts = _per_image(data.entropy[index], _members(data.iou[index], config), data.image[index])
    return sums, counts, (high, low, zero)


def group_sizes(iou: np.ndarray, config: AnalysisConfig) -> tuple[int, int, int]:
    """Return the numbers of candidates of the groups high, low and zero, by their ``iou`` (C,).

    Raises:
        DataError: the thresholds are invalid.
    """
    if not 0 < config.low_iou < config.high_iou < 1:
        raise DataError(
            f"IoU groups: 0 < low ({config.low_iou}) < high ({config.high_iou}) < 1 is needed (section 4.3)"
        )
    high, low, zero = (int(count) for count in _members(iou, config).sum(axis=1))
    return high, low, zero


def _members(iou: np.ndarray, config: AnalysisConfig) -> np.ndarray:
    """Return which candidates are in the groups high, low and zero, (3, C)."""
    return np.stack([iou > config.high_iou, (iou > 0) & (iou <= config.low_iou), iou == 0])


def entropy_gap(data: Collection, config: AnalysisConfig) -> np.ndarray:
    """Compute the entropy gap of section 4.3 over all candidates of ``data``.

    Returns:
        (4, L, K) mean entropy of the low-IoU group minus that of the high-IoU group, in nats.

    Raises:
        DataError: see :func:`group_entropies`.
    """
    sums, counts, _ = group_entropies(data, np.arange(len(data.iou)), config)
    entropy = _mean(sums.sum(axis=0), counts.sum(axis=0))
    return np.asarray(entropy[1] - entropy[0])


def head_file(
    analysis: Analysis, identity: ModelIdentity, made_by: str, config: AnalysisConfig | None = None
) -> HeadFile:
    """Return the head file with the ``config.heads`` heads of largest entropy gap for each coordinate."""
    config = config or AnalysisConfig()
    chosen = []
    for gap in analysis.entropy_gap:
        best = best_heads(gap, config.heads, analysis.layers if config.restrict else None)
        chosen.append(tuple(Head(layer, head, round(float(gap[layer, head]), 5)) for layer, head in best))
    return HeadFile(identity, "heads", tuple(chosen), tuple(sorted(analysis.layers)), made_by)


def best_heads(gap: np.ndarray, count: int, layers: tuple[int, ...] | None) -> list[tuple[int, int]]:
    """Return the ``count`` (layer, head) pairs of largest ``gap`` (L, K), within ``layers`` unless that is None."""
    allowed = gap.copy()
    if layers is not None:
        allowed[[layer for layer in range(len(gap)) if layer not in layers]] = -np.inf
    best = np.argsort(-allowed, axis=None, kind="stable")[:count]
    return [(int(flat) // gap.shape[1], int(flat) % gap.shape[1]) for flat in best if np.isfinite(allowed.flat[flat])]


def _per_image(entropy: np.ndarray, member: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, per image and group, sums of ``entropy`` (I, 3, 4, L, K) and numbers of candidates (I, 3)."""
    unique, inverse = np.unique(images, return_inverse=True)
    sums = np.zeros((len(unique), len(member), *entropy.shape[1:]))
    counts = np.zeros((len(unique), len(member)))
    for g, inside in enumerate(member):
        np.add.at(sums[:, g], inverse[inside], entropy[inside])
        np.add.at(counts[:, g], inverse[inside], 1)
    return sums, counts


def _mean(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return mean entropies (3, 4, L, K); NaN for an empty group."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums / counts[:, None, None, None]


def _draws(sums: np.ndarray, counts: np.ndarray, config: AnalysisConfig) -> np.ndarray:
    """Return the entropy gaps (D, 4, L, K) of bootstrap samples of the images. Images are drawn rather than candidates,
    because candidates of one image are correlated."""
    rng = np.random.default_rng(config.seed)
    gaps = []
    for _ in range(config.draws):
        times = np.bincount(rng.integers(len(sums), size=len(sums)), minlength=len(sums)).astype(float)
        number = times @ counts  # (3,)
        if min(number[:2]) > 0:
            mean = _mean(np.tensordot(times, sums, axes=1), number)
            gaps.append(mean[1] - mean[0])
    return np.stack(gaps)


def _chosen_share(draws: np.ndarray, count: int, layers: tuple[int, ...] | None) -> np.ndarray:
    """Return the share of the draws (D, 4, L, K) in which each head is among the best ``count``, (4, L, K)."""
    share = np.zeros(draws.shape[1:])
    for gaps in draws:
        for c, gap in enumerate(gaps):
            for layer, head in best_heads(gap, count, layers):
                share[c, layer, head] += 1 / len(draws)
    return share
