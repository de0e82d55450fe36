"""ACS-Learned-Box: ranks candidates by the IoU that the box regressor predicts from their attention in and around their
own box.

It is not part of the paper, whose ACS-Learned does not compare attention with the box. `acs-train build` fits the
regressor for a model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from acs_core.attention import AttentionNeeds, AttentionRecord
from acs_core.selection.acs_learned import predict_iou
from acs_core.selection.base import SelectorSpec
from acs_core.selection.box_regressor import BOX_REGRESSOR, BoxRegressor
from acs_core.selection.joint_features import shares_of_sides
from acs_core.types import Candidate, ScoreKind


class AcsLearnedBox:
    """Selector by the IoU predicted from attention and own box.

    Boxes of a second look are compared with the attention to their window.

    Args:
        regressor: regressor in eval mode; runs on the device of its weights.
        map_size: (h, w) of the maps that ``regressor`` was trained on.
    """

    name = "acs-learned-box"
    score_kind = ScoreKind.PREDICTED_IOU
    feature = "predicted_iou_in_box"
    greedy_decoding = False

    def __init__(self, regressor: BoxRegressor, map_size: tuple[int, int]) -> None:
        self.regressor = regressor.eval()
        self.needs = AttentionNeeds(maps=True, map_size=map_size)

    def qualities(
        self, candidates: Sequence[Candidate], record: AttentionRecord, image_size: tuple[int, int]
    ) -> np.ndarray:
        """Return (C,) predicted IoU in [0, 1].

        Raises:
            RegressorError: ``record`` holds no maps, or maps of another shape.
            NonFiniteError: a prediction is NaN.
        """
        boxes = torch.from_numpy(shares_of_sides(candidates, image_size).astype(np.float32))  # (C, 4)
        return predict_iou(self.name, self.regressor, record, len(candidates), boxes)

    def confidences(
        self,
        candidates: Sequence[Candidate],
        record: AttentionRecord,
        image_size: tuple[int, int],
        qualities: np.ndarray,
    ) -> np.ndarray | None:
        """Return the predicted IoU, (C,) in [0, 1], which is comparable between calls."""
        return qualities


SPEC = SelectorSpec(
    AcsLearnedBox.name,
    lambda loaded: AcsLearnedBox(loaded.model, loaded.map_size),
    reads=(BOX_REGRESSOR,),
    learned=True,
)
