"""ACS-Learned: ranks candidates by the IoU that the attention-IoU regressor predicts (paper section 4.2).

The regressor reads the maps of all layers and heads; `acs-train build` fits one for a model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from acs_core.attention import AttentionNeeds, AttentionRecord
from acs_core.device_array import held, upload
from acs_core.errors import NonFiniteError, RegressorError
from acs_core.selection.base import SelectorSpec
from acs_core.selection.regressor import REGRESSOR, AttentionIoURegressor
from acs_core.selection.regressor_files import MapRegressor
from acs_core.types import Candidate, ScoreKind

BATCH = 32  # candidates per batch; a candidate with 36 x 32 maps of 24 x 24 takes 10 MB, and more in the first layer


class AcsLearned:
    """Selector by predicted IoU.

    Args:
        regressor: regressor in eval mode; runs on the device of its weights.
        map_size: (h, w) of the maps that ``regressor`` was trained on.
    """

    name = "acs-learned"
    score_kind = ScoreKind.PREDICTED_IOU
    feature = "predicted_iou"
    greedy_decoding = False

    def __init__(self, regressor: AttentionIoURegressor, map_size: tuple[int, int]) -> None:
        self.regressor = regressor.eval()
        self.needs = AttentionNeeds(heads=None, maps=True, map_size=map_size)

    def qualities(
        self, candidates: Sequence[Candidate], record: AttentionRecord, image_size: tuple[int, int]
    ) -> np.ndarray:
        """Return (C,) predicted IoU in [0, 1].

        Raises:
            RegressorError: ``record`` holds no maps, or maps of another shape.
            NonFiniteError: a prediction is NaN.
        """
        return predict_iou(self.name, self.regressor, record, len(candidates))

    def confidences(
        self,
        candidates: Sequence[Candidate],
        record: AttentionRecord,
        image_size: tuple[int, int],
        qualities: np.ndarray,
    ) -> np.ndarray | None:
        """Return the predicted IoU, (C,) in [0, 1], which is comparable between calls."""
        return qualities


def predict_iou(
    selector: str, regressor: MapRegressor, record: AttentionRecord, count: int, *beside: torch.Tensor
) -> np.ndarray:
    """Predict the IoU of ``count`` candidates, batch by batch on the device of the regressor.

    Args:
        selector: name of the selector, for messages.
        regressor: the regressor.
        record: attention of the candidates.
        count: number C of candidates.
        beside: further input of the regressor, with C rows.

    Returns:
        (C,) float64 in [0, 1].

    Raises:
        RegressorError: ``record`` holds no maps, or maps of another shape.
        NonFiniteError: a prediction is NaN.
    """
    if not count:
        return np.zeros(0)
    maps = held(record, "maps")  # stays on its device
    if maps is None:
        raise RegressorError(f"{selector} needs attention maps, but only entropies were captured")
    device = next(regressor.parameters()).device
    predicted = []
    with torch.inference_mode():
        for start in range(0, count, BATCH):
            rows = slice(start, start + BATCH)
            some = torch.as_tensor(maps[rows]).to(device, torch.float32)  # (b, 4, L, K, h, w)
            predicted.append(regressor(some, *(upload(more[rows], device) for more in beside)))  # (b,)
        found = torch.cat(predicted).cpu().numpy().astype(np.float64)  # the only wait for the device
    if not np.isfinite(found).all():
        raise NonFiniteError(
            f"the regressor of {selector} predicted NaN: its weights, or the attention that it read, are broken; "
            "build it again with `acs-train build`, or try float32"
        )
    return found


SPEC = SelectorSpec(
    AcsLearned.name, lambda loaded: AcsLearned(loaded.model, loaded.map_size), reads=(REGRESSOR,), learned=True
)
