"""The selectors that make a box out of all candidates, coordinate by coordinate: majority-vote and mean-box (baselines
of section 5.1)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence

import numpy as np

from acs_core.attention import AttentionNeeds, Evidence
from acs_core.geometry import Box
from acs_core.types import Candidate, ScoreKind

DECIMALS = 6  # of a pixel: coordinates that the model wrote with the same digits are equal after all arithmetic


class Consensus(ABC):
    """Publishes a box made out of a group's boxes. The candidate nearest to it stands for it; no score is stated."""

    name = ""
    greedy_decoding = False
    needs = AttentionNeeds()
    score_kind = ScoreKind.NONE
    feature = ""

    def qualities(self, candidates: Sequence[Candidate], evidence: Evidence, image_size: tuple[int, int]) -> np.ndarray:
        """(C,) in [0, 1]: the IoU with the box made out of all candidates."""
        if not candidates:
            return np.zeros(0)
        made = self.combined([c.box for c in candidates])
        return np.array([c.box.iou(made) for c in candidates])

    def confidences(
        self, candidates: Sequence[Candidate], evidence: Evidence, qualities: np.ndarray
    ) -> np.ndarray | None:
        """None: nothing here could be calibrated."""
        return None

    def box_of(self, best: int, members: Sequence[int], candidates: Sequence[Candidate], qualities: np.ndarray) -> Box:
        """The box made out of ``members``; the best one's own where the coordinates, each from another box, enclose no
        area."""
        made = self.combined([candidates[i].box for i in sorted(members)])
        return made if made.area > 0 else candidates[best].box

    @abstractmethod
    def combined(self, boxes: Sequence[Box]) -> Box:
        """One box of at least one, in pixels; it may have no area."""


class MajorityVote(Consensus):
    """Per coordinate the most frequent value; ties go to the one nearest the median, then to the earlier one."""

    name = "majority-vote"

    def combined(self, boxes: Sequence[Box]) -> Box:
        """The box of the four majorities."""
        return Box(*(_majority(column) for column in zip(*(b.as_tuple() for b in boxes), strict=True)))


class MeanBox(Consensus):
    """Per coordinate the arithmetic mean."""

    name = "mean-box"

    def combined(self, boxes: Sequence[Box]) -> Box:
        """The box of the four means."""
        return Box(*np.mean([b.as_tuple() for b in boxes], axis=0).tolist())


def _majority(values: Sequence[float]) -> float:
    """Of one coordinate, in the order answered."""
    rounded = [round(v, DECIMALS) for v in values]
    counts = Counter(rounded)  # keeps the order of first appearance
    median, most = float(np.median(values)), max(counts.values())
    chosen = min((v for v, n in counts.items() if n == most), key=lambda v: round(abs(v - median), DECIMALS))
    return values[rounded.index(chosen)]
