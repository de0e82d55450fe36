"""Baseline selectors by the agreement of the boxes, without attention.

majority-vote and mean-box are those of section 5.1 of the paper. The others are further baselines that cost nothing:
they show what agreement alone achieves, which a selector that reads attention has to exceed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence

import numpy as np

from acs_core.attention import AttentionNeeds, AttentionRecord
from acs_core.geometry import CLUSTER_IOU, Box, iou_matrix, overlaps, union_find
from acs_core.selection.base import SelectorSpec
from acs_core.types import Candidate, ScoreKind

PIXEL_DECIMALS = 6  # of a pixel: makes coordinates that were written with the same digits equal in spite of rounding


class CombinedBox(ABC):
    """Selector that publishes a box computed from all boxes of a group, represented by the nearest candidate. It states
    no score."""

    name = ""
    greedy_decoding = False
    needs = AttentionNeeds()
    score_kind = ScoreKind.NONE
    feature = ""

    def qualities(
        self, candidates: Sequence[Candidate], record: AttentionRecord, image_size: tuple[int, int]
    ) -> np.ndarray:
        """Return (C,) qualities in [0, 1]: the IoU with the box computed from all candidates."""
        if not candidates:
            return np.zeros(0)
        made = self.combined([c.box for c in candidates])
        return np.array([c.box.iou(made) for c in candidates])

    def confidences(
        self,
        candidates: Sequence[Candidate],
        record: AttentionRecord,
        image_size: tuple[int, int],
        qualities: np.ndarray,
    ) -> np.ndarray | None:
        """Return None: there is nothing to calibrate."""
        return None

    def fuse(self, best: int, members: Sequence[int], candidates: Sequence[Candidate], qualities: np.ndarray) -> Box:
        """Return the box computed from ``members``; the best member's own box if the computed one has no area."""
        made = self.combined([candidates[i].box for i in sorted(members)])
        return made if made.area > 0 else candidates[best].box

    @abstractmethod
    def combined(self, boxes: Sequence[Box]) -> Box:
        """Compute one box from at least one box, in pixels; it may have no area."""


class MajorityVote(CombinedBox):
    """Selector of the most frequent value of each coordinate; ties go to the value that came first.

    The paper does not say how it breaks ties (section 5.1); :class:`MedianVote` breaks them otherwise.
    """

    name = "majority-vote"

    def combined(self, boxes: Sequence[Box]) -> Box:
        """Return the box of the four majorities."""
        return Box(*(_majority(column, to_median=False) for column in _columns(boxes)))


class MedianVote(CombinedBox):
    """Selector of the most frequent value of each coordinate; ties go to the value nearest the median of all values,
    then to the one that came first."""

    name = "majority-vote-median"

    def combined(self, boxes: Sequence[Box]) -> Box:
        """Return the box of the four majorities."""
        return Box(*(_majority(column, to_median=True) for column in _columns(boxes)))


class MeanBox(CombinedBox):
    """Selector of the arithmetic mean of each coordinate."""

    name = "mean-box"

    def combined(self, boxes: Sequence[Box]) -> Box:
        """Return the box of the four means."""
        return Box(*np.mean([b.as_tuple() for b in boxes], axis=0).tolist())


class GridVote(CombinedBox):
    """Selector of the region that most boxes cover: its largest connected part, as a box.

    It is the spatial vote of GUI-RC (Du et al., "Test-Time Reinforcement Learning for GUI Grounding via Region
    Consistency", 2025). The grid has a line at every side of a box, so that the vote is exact to the pixel's fraction.
    """

    name = "grid-vote"

    def combined(self, boxes: Sequence[Box]) -> Box:
        """Return the bounding box of the largest connected region with the most votes."""
        corners = np.array([b.as_tuple() for b in boxes])
        xs, ys = np.unique(corners[:, 0::2]), np.unique(corners[:, 1::2])
        votes = np.zeros((len(ys) - 1, len(xs) - 1), int)
        for x1, y1, x2, y2 in corners:
            votes[(ys[:-1] >= y1) & (ys[:-1] < y2), slice(*np.searchsorted(xs, (x1, x2)))] += 1
        rows, columns = np.nonzero(votes == votes.max())
        beside = np.abs(rows[:, None] - rows) + np.abs(columns[:, None] - columns) == 1
        region = np.array(union_find(beside))
        area = (xs[columns + 1] - xs[columns]) * (ys[rows + 1] - ys[rows])
        largest = region == np.argmax(np.bincount(region, weights=area))
        r, c = rows[largest], columns[largest]
        return Box(*map(float, (xs[c.min()], ys[r.min()], xs[c.max() + 1], ys[r.max() + 1])))


class Medoid:
    """Selector of the candidate that agrees best with all responses: the largest sum of IoUs with their boxes.

    Its quality and confidence are this sum divided by the number of responses, including those without a box: the
    expected IoU if one of the responses is right. The confidence is comparable between calls, so it can be calibrated.
    """

    name = "medoid"
    greedy_decoding = False
    needs = AttentionNeeds()
    score_kind = ScoreKind.RANK_RELATIVE
    feature = "agreement"

    def qualities(
        self, candidates: Sequence[Candidate], record: AttentionRecord, image_size: tuple[int, int]
    ) -> np.ndarray:
        """Return (C,) qualities in [0, 1]: the mean IoU with all responses."""
        return agreement(candidates, record.num_responses)

    def confidences(
        self,
        candidates: Sequence[Candidate],
        record: AttentionRecord,
        image_size: tuple[int, int],
        qualities: np.ndarray,
    ) -> np.ndarray | None:
        """Return (C,) confidences in [0, 1]: the mean IoU with all responses."""
        return agreement(candidates, record.num_responses)


class Consensus(Medoid):
    """Selector that publishes the mean of the boxes that agree with the medoid, at IoU >= 0.5."""

    name = "consensus"

    def fuse(self, best: int, members: Sequence[int], candidates: Sequence[Candidate], qualities: np.ndarray) -> Box:
        """Return the mean of the ``members`` that agree with the best one."""
        agreeing = [i for i in members if candidates[i].box.iou(candidates[best].box) >= CLUSTER_IOU]
        return Box(*np.mean([candidates[i].box.as_tuple() for i in agreeing], axis=0).tolist())


class LargestCluster(Medoid):
    """Selector of the medoid of the largest cluster: the one with boxes of the most responses (section 5.5)."""

    name = "largest-cluster"

    def qualities(
        self, candidates: Sequence[Candidate], record: AttentionRecord, image_size: tuple[int, int]
    ) -> np.ndarray:
        """Return (C,) qualities in [0, 1]: by the number of responses in the candidate's cluster, then by the mean IoU
        with all responses."""
        if not candidates:
            return np.zeros(0)
        clusters = np.array(union_find(overlaps([c.box for c in candidates])))
        responses = np.array([c.response for c in candidates])
        size = np.array([len(set(responses[clusters == k].tolist())) for k in clusters])
        return (size + agreement(candidates, record.num_responses)) / (size.max() + 1.0)


def mean_of_agreeing(
    best: int, members: Sequence[int], candidates: Sequence[Candidate], weights: np.ndarray, same: float
) -> Box:
    """Return the mean, weighted by ``weights`` (C,), of the ``members`` whose IoU with the best candidate is at least
    ``same``; the best box itself if their weights are 0."""
    agreeing = [i for i in members if candidates[i].box.iou(candidates[best].box) >= same]
    weight = np.asarray(weights)[agreeing]
    if not weight.sum() > 0:
        return candidates[best].box
    return Box(*np.average([candidates[i].box.as_tuple() for i in agreeing], axis=0, weights=weight).tolist())


def weights_of_looks(candidates: Sequence[Candidate]) -> np.ndarray:
    """Return the weights of boxes as votes, (C,): 2 for those of a second look, whose coordinates are half as coarse, 1
    for others."""
    return np.array([2.0 if c.look else 1.0 for c in candidates])


def overlaps_of(candidates: Sequence[Candidate]) -> np.ndarray:
    """Return the (C, C) IoU of all pairs of candidates."""
    boxes = np.array([c.box.as_tuple() for c in candidates])
    return iou_matrix(boxes, boxes)


def agreement(candidates: Sequence[Candidate], num_responses: int | None) -> np.ndarray:
    """Return the mean IoU of each candidate with all responses, (C,) in [0, 1].

    Of several boxes in one response the one with the largest IoU counts; a response without a box counts as 0.

    Args:
        candidates: C candidates.
        num_responses: number of responses that count; None if unknown, which stands for those up to the last with a
            candidate.
    """
    if not candidates:
        return np.zeros(0)
    iou, responses = overlaps_of(candidates), np.array([c.response for c in candidates])
    agreed = np.stack([iou[:, responses == r].max(axis=1) for r in np.unique(responses)])  # (R', C)
    counted = int(responses.max()) + 1 if num_responses is None else num_responses
    return np.asarray(agreed.sum(axis=0) / max(counted, len(agreed)))


def _columns(boxes: Sequence[Box]) -> list[tuple[float, ...]]:
    """Return the values of each coordinate, in the order of the boxes."""
    return list(zip(*(b.as_tuple() for b in boxes), strict=True))


def _majority(values: Sequence[float], *, to_median: bool) -> float:
    """Return the most frequent of one coordinate's values, which are in the order of the responses."""
    rounded = [round(v, PIXEL_DECIMALS) for v in values]
    counts = Counter(rounded)  # keeps the order of first appearance
    most = max(counts.values())
    tied = [v for v, n in counts.items() if n == most]
    median = float(np.median(values))
    chosen = min(tied, key=lambda v: round(abs(v - median), PIXEL_DECIMALS)) if to_median else tied[0]
    return values[rounded.index(chosen)]


_CLASSES = (MajorityVote, MedianVote, MeanBox, GridVote, Consensus)
SPECS = (
    *(SelectorSpec(chosen.name, chosen, fuses_boxes=True, baseline=True) for chosen in _CLASSES),
    SelectorSpec(Medoid.name, Medoid, baseline=True),
    SelectorSpec(LargestCluster.name, LargestCluster, baseline=True),
)
