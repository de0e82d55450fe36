"""Whether published scores can be believed: calibration, and what abstaining below a score would buy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 10


@dataclass(frozen=True)
class Bin:
    """The ``count`` boxes of one bin of scores: their mean ``stated`` score, and the share that was ``right``."""

    count: int
    stated: float
    right: float


@dataclass(frozen=True)
class Calibration:
    """``error`` is the expected calibration error, the mean gap between score and share of right boxes over bins of
    equal width, weighted by their boxes; ``brier`` the mean squared error of the score. Empty bins are left out."""

    count: int
    error: float
    brier: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class RiskCoverage:
    """Accuracy of the answers that are kept when the least certain ones are held back.

    ``coverage`` (K,) are the kept shares, ascending, one for each distinct score; ``accuracy`` (K,) that of the kept.
    Questions without an answer come last, as wrong, where coverage reaches 1. ``area`` is that under risk
    (1 - accuracy) over coverage: the mean risk over all numbers of kept answers, 0 for a perfect method.
    """

    coverage: np.ndarray
    accuracy: np.ndarray
    area: float

    def accuracy_at(self, coverage: float) -> float:
        """Accuracy when the share ``coverage`` in (0, 1] is kept; of answers with one score, any."""
        right = np.interp(coverage, [0.0, *self.coverage], [0.0, *(self.coverage * self.accuracy)])
        return float(right) / coverage


def calibration(score: np.ndarray, hit: np.ndarray, bins: int = BINS) -> Calibration | None:
    """Of boxes with scores (M,) in [0, 1], NaN for boxes without one, which are left out; None where none has one."""
    known = np.isfinite(score)
    if not known.any():
        return None
    score, right = score[known], hit[known].astype(float)
    place = np.minimum((score * bins).astype(int), bins - 1)
    found = []
    for k in range(bins):
        here = place == k
        if here.any():
            found.append(Bin(int(here.sum()), float(score[here].mean()), float(right[here].mean())))
    error = sum(b.count * abs(b.stated - b.right) for b in found) / len(score)
    return Calibration(len(score), error, float(((score - right) ** 2).mean()), tuple(found))


def risk_coverage(score: np.ndarray, right: np.ndarray, answered: np.ndarray) -> RiskCoverage | None:
    """Of questions (Q,): the score of the answer, whether it is right, and whether there is one. None where an answer
    has no score, or nothing was answered. Answers of one score are kept or held back together."""
    if not answered.any() or not np.isfinite(score[answered]).all():
        return None
    key = np.where(answered, score, -1.0)  # below every score
    levels, group, sizes = np.unique(-key, return_inverse=True, return_counts=True)
    hits = np.bincount(group, (right & answered).astype(float), minlength=len(levels))
    kept, found = sizes.cumsum(), hits.cumsum()
    # Within answers of one score the order is open: each stands for the mean of its group.
    expected = np.repeat(hits / sizes, sizes).cumsum() / np.arange(1, len(score) + 1)
    return RiskCoverage(kept / len(score), found / kept, float((1 - expected).mean()))
