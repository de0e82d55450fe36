"""ACS-Fusion-Box: publishes the weighted mean of the boxes that responses agree on, with weights by the attention that
falls on each box.

It is not part of the paper. It differs from ACS-Fusion in the weights: attention in the own box tells which object a
response wrote about, which the entropy of a head does not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from acs_core.attention import AttentionRecord
from acs_core.geometry import Box, iou_matrix
from acs_core.selection.attention_in_box import BOX_LAYERS, AttentionInBox, BoxLayers
from acs_core.selection.base import SelectorSpec
from acs_core.selection.box_votes import mean_of_agreeing
from acs_core.selection.joint_features import SAME
from acs_core.selection.second_look import looked_again
from acs_core.types import Candidate, ScoreKind

LEAST = 1e-6  # weight of a box without attention, so that weights never sum to 0


class AcsFusionBox:
    """Selector by attention-weighted agreement, which publishes the mean of the boxes that agree (IoU >= 0.3) with the
    best candidate.

    The weight of a candidate is its attention in the own box, as attention-in-box computes it. Its quality is the
    weighted mean IoU of all candidates with it, including itself: the expected IoU if one of them is the true box. A
    candidate of a second look has twice the weight, since its coordinates are half as coarse. Nothing is fitted; the
    file is that of attention-in-box.
    """

    name = "acs-fusion-box"
    score_kind = ScoreKind.RANK_RELATIVE
    feature = "agreement_weighted_by_attention_in_box"
    greedy_decoding = False

    def __init__(self, layers: BoxLayers) -> None:
        self._in_box = AttentionInBox(layers)
        self.layers = layers
        self.needs = self._in_box.needs

    def qualities(
        self, candidates: Sequence[Candidate], record: AttentionRecord, image_size: tuple[int, int]
    ) -> np.ndarray:
        """Return (C,) qualities in [0, 1]: the weighted mean IoU with all candidates.

        Raises:
            ArtifactError, NonFiniteError: as :meth:`AttentionInBox.qualities`.
        """
        if not candidates:
            return np.zeros(0)
        weight = np.maximum(self._in_box.qualities(candidates, record, image_size), LEAST)
        weight = weight * np.where(looked_again(candidates), 2.0, 1.0)
        boxes = np.array([c.box.as_tuple() for c in candidates])
        return np.asarray(iou_matrix(boxes, boxes) @ weight / weight.sum())  # (C, C) @ (C,)

    def confidences(
        self, candidates: Sequence[Candidate], record: AttentionRecord, qualities: np.ndarray
    ) -> np.ndarray | None:
        """Return (C,) confidences in [0, 1]: the quality times the share of the responses that have a box."""
        if not candidates:
            return np.zeros(0)
        boxed = len({c.response for c in candidates})
        return np.asarray(qualities) * boxed / max(boxed, record.num_responses)

    def fuse(self, best: int, members: Sequence[int], candidates: Sequence[Candidate], qualities: np.ndarray) -> Box:
        """Return the mean, weighted by quality, of the ``members`` that overlap the best one."""
        return mean_of_agreeing(best, members, candidates, np.maximum(qualities, LEAST), SAME)


SPEC = SelectorSpec(AcsFusionBox.name, AcsFusionBox, reads=(BOX_LAYERS,), fuses_boxes=True)
