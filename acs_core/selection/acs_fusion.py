"""ACS-Fusion: the box that sampled answers agree on, each with the weight that its attention deserves. Not the paper's:
its selectors pick one candidate, and a sampled box has the rounding and the luck of four drawn numbers in it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from acs_core.attention import AttentionNeeds, Evidence
from acs_core.geometry import Box, iou_matrix
from acs_core.heads import HeadFile
from acs_core.second_look import looked_again
from acs_core.selection.acs_free import mean_entropies, rank_sums
from acs_core.types import Candidate, ScoreKind

SAME = 0.3  # IoU from which on two boxes are tries at one object; small ones that mean the same differ by half


class AcsFusion:
    """Ranks by attention-weighted agreement, and publishes the mean of the boxes that agree with the best.

    A candidate's weight is 1 + a, with a in [0, 1] the quality that ACS-Free gives it (section 4.4): the best look
    counts twice. Its quality is the weighted mean IoU of all candidates with it, itself included: the IoU to be
    expected if one of them is the truth. A candidate of a second look counts twice: its unit is half as many pixels.
    Nothing is fitted; the head file is that of ACS-Free.
    """

    name = "acs-fusion"
    score_kind = ScoreKind.RANK_RELATIVE
    feature = "agreement_and_concentration"
    greedy_decoding = False

    def __init__(self, heads: HeadFile) -> None:
        self.heads = heads
        self.needs = AttentionNeeds(heads=heads.pairs())

    def qualities(self, candidates: Sequence[Candidate], evidence: Evidence, image_size: tuple[int, int]) -> np.ndarray:
        """(C,) in [0, 1]: the weighted mean IoU with all candidates."""
        count = len(candidates)
        if not count:
            return np.zeros(0)
        ranks = rank_sums(mean_entropies(evidence, self.heads))
        weight = 1.0 + (4.0 * count - ranks) / (4.0 * count - 4.0) if count > 1 else np.ones(1)
        weight = weight * np.where(looked_again(candidates), 2.0, 1.0)
        return np.asarray(_overlap(candidates) @ weight / weight.sum())  # (C, C) @ (C,)

    def confidences(
        self, candidates: Sequence[Candidate], evidence: Evidence, qualities: np.ndarray
    ) -> np.ndarray | None:
        """(C,) in [0, 1], the mean of two: of all *responses*, with what IoU they agree on average, one without a box
        agreeing not at all; and how concentrated the attention is (1 - entropy / log cells, as of ACS-Free)."""
        if not candidates:
            return np.zeros(0)
        overlap, responses = _overlap(candidates), np.array([c.response for c in candidates])
        # of several boxes in one response the one that fits counts
        agreed = np.stack([overlap[:, responses == r].max(axis=1) for r in np.unique(responses)])  # (R', C)
        drawn = max(evidence.num_responses, int(responses.max()) + 1)
        cells = evidence.grid[0] * evidence.grid[1]
        spread = mean_entropies(evidence, self.heads).mean(axis=1) / math.log(max(2, cells))
        return np.asarray((agreed.sum(axis=0) / drawn + np.clip(1.0 - spread, 0.0, 1.0)) / 2.0)

    def box_of(self, best: int, members: Sequence[int], candidates: Sequence[Candidate], qualities: np.ndarray) -> Box:
        """The mean, weighted by quality, of the ``members`` that overlap the best one."""
        agreeing = [i for i in members if candidates[i].box.iou(candidates[best].box) >= SAME]
        weights = np.asarray(qualities)[agreeing]
        if weights.sum() <= 0:
            return candidates[best].box
        return Box(*np.average([candidates[i].box.as_tuple() for i in agreeing], axis=0, weights=weights).tolist())


def _overlap(candidates: Sequence[Candidate]) -> np.ndarray:
    """(C, C) IoU of every candidate with every one."""
    boxes = np.array([c.box.as_tuple() for c in candidates])
    return iou_matrix(boxes, boxes)
