"""ACS-Fusion-Box: publishes the weighted mean of the boxes that responses agree on, with weights by the attention that
falls on each box.

It is not part of the paper. It differs from ACS-Fusion in the weights: attention in the own box tells which object a
response wrote about, which the entropy of a head does not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from acs_core.attention import AttentionRecord
from acs_core.geometry import Box
from acs_core.selection.attention_in_box import BOX_LAYERS, AttentionInBox, BoxLayers
from acs_core.selection.base import SelectorSpec
from acs_core.selection.box_votes import mean_of_agreeing, overlaps_of, weights_of_looks
from acs_core.selection.joint_features import SAME
from acs_core.types import Candidate, ScoreKind

LEAST = 1e-6  # weight of a box without attention, so that weights never sum to 0


class AcsFusionBox:
    """Selector by attention-weighted agreement, which publishes the mean of the boxes that agree (IoU >= 0.3) with the
    best candidate.

    The weight of a candidate is its attention in the own box, as attention-in-box computes it. Its quality is the
    weighted mean IoU of all responses with it, its own included: the expected IoU if one of them is the true box. Of
    several boxes in one response the one counts that speaks most for the candidate, so that the objects of a response
    do not share its weight. A candidate of a second look has twice the weight, since its coordinates are half as
    coarse. Nothing is fitted; the file is that of attention-in-box.
    """

    name = "acs-fusion-box"
    score_kind = ScoreKind.RANK_RELATIVE
    feature = "weighted_agreement_and_attention_in_box"
    greedy_decoding = False

    def __init__(self, layers: BoxLayers) -> None:
        self._in_box = AttentionInBox(layers)
        self.layers = layers
        self.needs = self._in_box.needs

    def qualities(
        self, candidates: Sequence[Candidate], record: AttentionRecord, image_size: tuple[int, int]
    ) -> np.ndarray:
        """Return (C,) qualities in [0, 1]: the weighted mean IoU with the boxes of all responses.

        Raises:
            ArtifactError, NonFiniteError: as :meth:`AttentionInBox.qualities`.
        """
        if not candidates:
            return np.zeros(0)
        weight = _weights(candidates, self._in_box.qualities(candidates, record, image_size))
        overlap, responses = overlaps_of(candidates), _responses(candidates)
        spoken = np.stack([(overlap * weight)[:, mine].max(axis=1) for mine in responses])  # (R, C)
        return np.asarray(spoken.sum(axis=0) / sum(weight[mine].max() for mine in responses))

    def confidences(
        self,
        candidates: Sequence[Candidate],
        record: AttentionRecord,
        image_size: tuple[int, int],
        qualities: np.ndarray,
    ) -> np.ndarray | None:
        """Return (C,) confidences in [0, 1]: the mean of agreement and attention, as in ACS-Fusion.

        Agreement is the mean IoU with all responses, 0 for responses without a box; the others weigh by the attention
        in the box that overlaps the candidate, so that each of several objects has a value of its own. Attention is
        that in the candidate's own box. A single response agrees with itself, and only its attention can tell.
        """
        if not candidates:
            return np.zeros(0)
        looks = self._in_box.qualities(candidates, record, image_size)
        weight, overlap = _weights(candidates, looks), overlaps_of(candidates)
        agreed, total = np.zeros(len(candidates)), np.zeros(len(candidates))
        responses = _responses(candidates)
        for mine in responses:
            fits, nearest = overlap[:, mine].max(axis=1), mine[overlap[:, mine].argmax(axis=1)]
            of_response = np.where(fits >= SAME, weight[nearest], weight[mine].max())
            agreed, total = agreed + of_response * fits, total + of_response
        share = len(responses) / max(len(responses), record.num_responses or 0)
        return np.asarray((share * agreed / total + np.clip(looks, 0.0, 1.0)) / 2.0)

    def fuse(self, best: int, members: Sequence[int], candidates: Sequence[Candidate], qualities: np.ndarray) -> Box:
        """Return the mean, weighted by quality, of the ``members`` that overlap the best one."""
        return mean_of_agreeing(best, members, candidates, np.maximum(qualities, LEAST), SAME)


def _weights(candidates: Sequence[Candidate], looks: np.ndarray) -> np.ndarray:
    """Return the weights of candidates with the attention ``looks`` in their own boxes, (C,), above 0."""
    return np.asarray(np.maximum(looks, LEAST) * weights_of_looks(candidates))


def _responses(candidates: Sequence[Candidate]) -> list[np.ndarray]:
    """Return the indices of the candidates of each response that has any."""
    of = np.array([c.response for c in candidates])
    return [np.flatnonzero(of == r) for r in np.unique(of)]


SPEC = SelectorSpec(AcsFusionBox.name, AcsFusionBox, reads=(BOX_LAYERS,), fuses_boxes=True)
