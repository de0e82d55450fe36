"""ACS-Free: ranks candidates by the entropy of attention in the discriminative heads (section 4.4, appendix E)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from acs_core.attention import AttentionNeeds, Evidence
from acs_core.errors import HeadFileError
from acs_core.heads import HeadFile
from acs_core.types import COORDINATES, Candidate, ScoreKind

# Answers that begin alike look alike: before the first x1 most are the same text, and the same answer may be drawn
# twice. Their entropies still differ in the last bits of float32. Beyond this many decimals of a nat a difference is
# arithmetic, not attention, and counts as a tie.
DECIMALS = 5


class AcsFree:
    """Ranks by equation 4: per coordinate the mean entropy over D_c is turned into a rank, and the ranks are summed.

    Only ranks enter the quality, so it compares candidates of one call and has no absolute meaning. For a calibration
    :meth:`confidences` gives what the ranks leave out: how concentrated the attention is.
    """

    name = "acs-free"
    score_kind = ScoreKind.RANK_RELATIVE
    feature = "attention_concentration"
    greedy_decoding = False

    def __init__(self, heads: HeadFile) -> None:
        self.heads = heads
        self.needs = AttentionNeeds(heads=heads.pairs())

    def qualities(self, candidates: Sequence[Candidate], evidence: Evidence, image_size: tuple[int, int]) -> np.ndarray:
        """(C,) in [0, 1]: 1 - (R - 4) / (4C - 4) with the rank sum R of appendix E, so that 1 is first in all four
        coordinates and 0 last in all four; 1 for a lone candidate."""
        ranks = rank_sums(mean_entropies(evidence, self.heads))
        worst = 4.0 * len(ranks)
        return 1.0 - (ranks - 4.0) / (worst - 4.0) if len(ranks) > 1 else np.ones(len(ranks))

    def confidences(
        self, candidates: Sequence[Candidate], evidence: Evidence, qualities: np.ndarray
    ) -> np.ndarray | None:
        """(C,) in [0, 1]: 1 - H / log(cells), H the mean of the four coordinates' entropies. 0 is attention spread
        evenly over the image, 1 all on one cell; dividing by the largest possible entropy makes grids comparable."""
        cells = evidence.grid[0] * evidence.grid[1]
        if cells < 2:
            return np.zeros(len(candidates))
        return np.clip(1.0 - mean_entropies(evidence, self.heads).mean(axis=1) / math.log(cells), 0.0, 1.0)


def mean_entropies(evidence: Evidence, heads: HeadFile) -> np.ndarray:
    """Equation 4: (C, 4) float64 in nats, the mean over D_c of each candidate's entropies at each coordinate.

    Raises:
        HeadFileError: the evidence lacks (NaN) a head of ``heads``: it was captured for other needs.
    """
    columns = []
    for c, pairs in enumerate(heads.pairs()):
        layers, numbers = (list(v) for v in zip(*pairs, strict=True))
        values = evidence.entropy[:, c, layers, numbers].astype(np.float64)  # (C, |D_c|)
        if np.isnan(values).any():
            raise HeadFileError(f"the captured attention lacks a head that the head file lists for {COORDINATES[c]}")
        columns.append(values.mean(axis=1))
    return np.stack(columns, axis=1)


def rank_sums(entropies: np.ndarray) -> np.ndarray:
    """Appendix E: (C, 4) entropies -> (C,) rank sums R in [4, 4C], lower is better; equal entropies share the average
    of the ranks they take up."""
    return np.sum([average_ranks(column) for column in np.round(entropies, DECIMALS).T], axis=0)


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks 1..C in ascending order of ``values`` (C,), equal values sharing the average of theirs: float64 (C,)."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)  # the highest rank in each group of equals
    return (last - (counts - 1) / 2.0)[inverse]
