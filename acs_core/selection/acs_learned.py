"""ACS-Learned: ranks candidates by the IoU that the attention-IoU regressor predicts (paper section 4.2).

The regressor reads the maps of all layers and heads; `acs-train build` fits one for a model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from acs_core.attention import AttentionNeeds, AttentionRecord
from acs_core.device_array import held
from acs_core.errors import NonFiniteError, RegressorError
from acs_core.selection.base import SelectorSpec
from acs_core.selection.regressor import REGRESSOR, AttentionIoURegressor
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
        if not candidates:
            return np.zeros(0)
        maps = held(record, "maps")  # stays on its device
        if maps is None:
            raise RegressorError("acs-learned needs attention maps, but only entropies were captured")
        device = next(self.regressor.parameters()).device
        predicted = []
        with torch.inference_mode():
            for start in range(0, len(candidates), BATCH):
                some = torch.as_tensor(maps[start : start + BATCH]).to(device, torch.float32)
                predicted.append(self.regressor(some))  # (b, 4, L, K, h, w) -> (b,)
            found = torch.cat(predicted).cpu().numpy().astype(np.float64)  # the only wait for the device
        if not np.isfinite(found).all():
            raise NonFiniteError(
                "the regressor of acs-learned predicted NaN: its weights, or the attention that it read, are broken; "
                "build it again with `acs-train build`, or try float32"
            )
        return found

    def confidences(
        self, candidates: Sequence[Candidate], record: AttentionRecord, qualities: np.ndarray
    ) -> np.ndarray | None:
        """Return the predicted IoU, (C,) in [0, 1], which is comparable between calls."""
        return qualities


SPEC = SelectorSpec(
    AcsLearned.name, lambda loaded: AcsLearned(loaded.model, loaded.map_size), reads=(REGRESSOR,), learned=True
)
