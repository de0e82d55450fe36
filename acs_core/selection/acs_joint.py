"""ACS-Joint: ranks candidates by the IoU that the joint model predicts, and publishes the mean of the boxes that agree.

It is not part of the paper. It combines the attention that ACS-Learned reads with the agreement that ACS-Fusion
measures, weighted by boosted trees that `acs-train build` fits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from acs_core.attention import AttentionNeeds, AttentionRecord
from acs_core.geometry import Box
from acs_core.selection.base import SelectorSpec
from acs_core.selection.box_votes import mean_of_agreeing, weights_of_looks
from acs_core.selection.joint_features import SAME
from acs_core.selection.joint_model import JOINT_MODEL, JointIoUModel
from acs_core.types import Candidate, ScoreKind


class AcsJoint:
    """Selector by predicted IoU, which publishes the mean of the boxes that agree (IoU >= 0.3) with the best candidate.

    Boxes are weighted by the square of their predicted IoU. A box of a second look has twice the weight, since its
    coordinates are half as coarse.
    """

    name = "acs-joint"
    score_kind = ScoreKind.PREDICTED_IOU
    feature = "joint_predicted_iou"
    greedy_decoding = False

    def __init__(self, model: JointIoUModel) -> None:
        self.model = model
        self.needs = AttentionNeeds(
            maps=True,
            map_size=model.map_size,
            all_entropies=True,
            whole_responses=True,  # the number of boxes of a response is a feature
        )

    def qualities(
        self, candidates: Sequence[Candidate], record: AttentionRecord, image_size: tuple[int, int]
    ) -> np.ndarray:
        """Return (C,) predicted IoU in [0, 1].

        Raises:
            JointError: ``record`` holds no maps, or maps of another shape.
            NonFiniteError: the attention is NaN or infinite.
        """
        return self.model.predict(candidates, record, image_size)

    def confidences(
        self,
        candidates: Sequence[Candidate],
        record: AttentionRecord,
        image_size: tuple[int, int],
        qualities: np.ndarray,
    ) -> np.ndarray | None:
        """Return the predicted IoU, (C,) in [0, 1], which is comparable between calls."""
        return qualities

    def fuse(self, best: int, members: Sequence[int], candidates: Sequence[Candidate], qualities: np.ndarray) -> Box:
        """Return the weighted mean of the ``members`` whose IoU with the best one is at least 0.3.

        Weights are the square of quality, twice that for boxes of a second look. If all weights are 0, the best box is
        returned.
        """
        weights = np.asarray(qualities) ** 2 * weights_of_looks(candidates)
        return mean_of_agreeing(best, members, candidates, weights, SAME)


SPEC = SelectorSpec(AcsJoint.name, AcsJoint, reads=(JOINT_MODEL,), fuses_boxes=True, learned=True)
