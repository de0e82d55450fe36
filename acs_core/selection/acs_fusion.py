"""ACS-Fusion: publishes the weighted mean of the boxes that responses agree on, with weights by their attention.

It is not part of the paper, whose selectors pick one candidate; a single sampled box has the rounding and the sampling
noise of its four coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from acs_core.arguments import instance
from acs_core.artifacts.heads import HeadFile
from acs_core.attention import AttentionNeeds, AttentionRecord
from acs_core.geometry import Box
from acs_core.selection.acs_free import HEADS, mean_entropies, rank_sums
from acs_core.selection.base import SelectorSpec
from acs_core.selection.box_votes import agreement, mean_of_agreeing, overlaps_of, weights_of_looks
from acs_core.types import Candidate, ScoreKind

SAME = 0.3  # minimum IoU of two boxes for the same object; boxes of a small object may overlap by only a half


class AcsFusion:
    """Selector by attention-weighted agreement, which publishes the mean of the boxes that agree with the best
    candidate.

    The weight of a candidate is 1 + a, with the quality a in [0, 1] that ACS-Free gives it (section 4.4), so that the
    best attention counts twice. Its quality is the weighted mean IoU of all candidates with it, including itself: the
    expected IoU if one of them is the true box. A candidate of a second look has twice the weight, since its
    coordinates are half as coarse. Nothing is fitted; the head file is that of ACS-Free.
    """

    name = "acs-fusion"
    score_kind = ScoreKind.RANK_RELATIVE
    feature = "agreement_and_concentration"
    greedy_decoding = False

    def __init__(self, heads: HeadFile) -> None:
        self.heads = instance("heads", heads, HeadFile, "a HeadFile")
        self._pairs = heads.pairs()
        self.needs = AttentionNeeds(heads=self._pairs)

    def qualities(
        self, candidates: Sequence[Candidate], record: AttentionRecord, image_size: tuple[int, int]
    ) -> np.ndarray:
        """Return (C,) qualities in [0, 1]: the weighted mean IoU with all candidates."""
        count = len(candidates)
        if not count:
            return np.zeros(0)
        ranks = rank_sums(mean_entropies(record, self._pairs))
        weight = 1.0 + (4.0 * count - ranks) / (4.0 * count - 4.0) if count > 1 else np.ones(1)
        weight = weight * weights_of_looks(candidates)
        return np.asarray(overlaps_of(candidates) @ weight / weight.sum())  # (C, C) @ (C,)

    def confidences(
        self,
        candidates: Sequence[Candidate],
        record: AttentionRecord,
        image_size: tuple[int, int],
        qualities: np.ndarray,
    ) -> np.ndarray | None:
        """Return (C,) confidences in [0, 1]: the mean of agreement and attention.

        Agreement is the mean IoU with all *responses*, 0 for responses without a box; attention is 1 - entropy /
        log(cells), as in ACS-Free.
        """
        if not candidates:
            return np.zeros(0)
        cells = record.grid[0] * record.grid[1]
        spread = mean_entropies(record, self._pairs).mean(axis=1) / math.log(max(2, cells))
        return np.asarray((agreement(candidates, record.num_responses) + np.clip(1.0 - spread, 0.0, 1.0)) / 2.0)

    def fuse(self, best: int, members: Sequence[int], candidates: Sequence[Candidate], qualities: np.ndarray) -> Box:
        """Return the mean, weighted by quality, of the ``members`` that overlap the best one."""
        return mean_of_agreeing(best, members, candidates, qualities, SAME)


SPEC = SelectorSpec(AcsFusion.name, AcsFusion, reads=(HEADS,), fuses_boxes=True)
