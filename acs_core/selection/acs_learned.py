"""ACS-Learned: candidates ranked by the IoU that the attention-IoU regressor predicts (paper section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from acs_core.attention import AttentionNeeds, Evidence
from acs_core.errors import RegressorError
from acs_core.regressor import AttentionIoURegressor
from acs_core.types import Candidate, ScoreKind

BATCH = 32  # candidates at once: 36 x 32 maps of 24 x 24 are 10 MB each, and the first layer's output adds to that


class AcsLearned:
    """Ranks by predicted IoU. ``map_size`` (h, w) is the one ``regressor`` was trained on; it runs where its weights
    are, in eval mode."""

    name = "acs-learned"
    score_kind = ScoreKind.PREDICTED_IOU
    feature = "predicted_iou"
    greedy_decoding = False

    def __init__(self, regressor: AttentionIoURegressor, map_size: tuple[int, int]) -> None:
        self.regressor = regressor.eval()
        self.needs = AttentionNeeds(heads=None, maps=True, map_size=map_size)

    def qualities(self, candidates: Sequence[Candidate], evidence: Evidence, image_size: tuple[int, int]) -> np.ndarray:
        """(C,) predicted IoU in [0, 1].

        Raises:
            RegressorError: the evidence holds no maps, or maps of another shape.
        """
        if not candidates:
            return np.zeros(0)
        if evidence.maps is None:
            raise RegressorError("acs-learned needs attention maps, but only entropies were captured")
        device = next(self.regressor.parameters()).device
        predicted = []
        with torch.inference_mode():
            for start in range(0, len(candidates), BATCH):
                maps = torch.from_numpy(evidence.maps[start : start + BATCH]).to(device, torch.float32)
                predicted.append(self.regressor(maps).cpu())  # (b, 4, L, K, h, w) -> (b,)
        return torch.cat(predicted).numpy().astype(np.float64)

    def confidences(
        self, candidates: Sequence[Candidate], evidence: Evidence, qualities: np.ndarray
    ) -> np.ndarray | None:
        """The predicted IoU itself: it means the same in every call."""
        return qualities
