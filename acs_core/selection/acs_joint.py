"""ACS-Joint: candidates ranked by the IoU that the joint quality predicts, and the mean of those that agree with the
best one. Not the paper's: what ACS-Learned sees in attention and ACS-Fusion in agreement, weighed as was learnt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from acs_core.attention import AttentionNeeds, Evidence
from acs_core.geometry import Box
from acs_core.joint import JointQuality
from acs_core.joint_features import SAME
from acs_core.second_look import looked_again
from acs_core.types import Candidate, ScoreKind


class AcsJoint:
    """Ranks by predicted IoU, and publishes the mean of the boxes that agree (IoU >= 0.3) with the best, weighted by
    its square. A box of a second look weighs twice as much: its unit is half as many pixels."""

    name = "acs-joint"
    score_kind = ScoreKind.PREDICTED_IOU
    feature = "joint_predicted_iou"
    greedy_decoding = False

    def __init__(self, quality: JointQuality) -> None:
        self.quality = quality
        self.needs = AttentionNeeds(maps=True, map_size=quality.map_size, all_entropies=True)

    def qualities(self, candidates: Sequence[Candidate], evidence: Evidence, image_size: tuple[int, int]) -> np.ndarray:
        """(C,) predicted IoU in [0, 1].

        Raises:
            JointError: the evidence holds no maps, or maps of another shape.
        """
        return self.quality.predict(candidates, evidence, image_size)

    def confidences(
        self, candidates: Sequence[Candidate], evidence: Evidence, qualities: np.ndarray
    ) -> np.ndarray | None:
        """The predicted IoU itself: it means the same in every call."""
        return qualities

    def box_of(self, best: int, members: Sequence[int], candidates: Sequence[Candidate], qualities: np.ndarray) -> Box:
        """The mean, weighted by the square of quality, of the ``members`` that overlap the best one."""
        agreeing = [i for i in members if candidates[i].box.iou(candidates[best].box) >= SAME]
        doubled = np.where(looked_again([candidates[i] for i in agreeing]), 2.0, 1.0)
        weights = np.asarray(qualities)[agreeing] ** 2 * doubled
        if not weights.sum() > 0:
            return candidates[best].box
        return Box(*np.average([candidates[i].box.as_tuple() for i in agreeing], axis=0, weights=weights).tolist())
