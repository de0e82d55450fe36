"""Statistics of an evaluation: bootstrap intervals, paired comparisons, calibration and risk-coverage.

The bootstrap resamples images, not questions, since questions about the same image are not independent. Paired
comparisons test whether one method is better than another on the same questions. Calibration measures whether published
scores are right, risk-coverage what abstaining below a score gains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 2000
LEVEL = 0.95
BLOCK = 4_000_000  # number of weights converted to float at a time
BINS = 10
ON_OBJECT = 0.1  # minimum IoU of a box that lies on the true object, right or not


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % confidence interval; NaN where it is undefined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Drawn:
    """A bootstrapped statistic of R runs.

    Attributes:
        value: (R,) statistic of the data.
        draws: (B, R) statistic of each resample.
    """

    value: np.ndarray
    draws: np.ndarray

    def __sub__(self, other: Drawn) -> Drawn:
        return Drawn(self.value - other.value, self.draws - other.draws)

    def relative_to(self, other: Drawn) -> Drawn:
        """Return the gain over ``other`` relative to it: ``self / other - 1``."""
        return Drawn(_divide(self.value, other.value) - 1, _divide(self.draws, other.draws) - 1)

    def run(self, index: int) -> Drawn:
        """Return the statistic of one run, with R = 1."""
        return Drawn(self.value[index : index + 1], self.draws[:, index : index + 1])

    def estimates(self) -> list[Estimate]:
        """Return value and percentile interval of each run."""
        ends = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
        found = []
        for value, draws in zip(self.value, self.draws.T, strict=True):
            known = draws[np.isfinite(draws)]
            low, high = np.percentile(known, ends) if len(known) else (np.nan, np.nan)
            found.append(Estimate(float(value), float(low), float(high)))
        return found

    def p_values(self) -> np.ndarray:
        """Return the two-sided bootstrap p-value of each run, (R,), for the hypothesis that the statistic is 0.

        Meaningful for differences. The smallest possible value is 2 / (B + 1).
        """
        below, above = (1 + (self.draws <= 0).sum(axis=0)), (1 + (self.draws >= 0).sum(axis=0))
        return np.minimum(1.0, 2 * np.minimum(below, above) / (1 + len(self.draws)))


class Resampling:
    """Bootstrap resamples of images, the same for every statistic, so that differences are paired.

    Args:
        image: (Q,) index of each question's image, from 0.
        draws: number of resamples B.
        seed: seed of the random generator.
    """

    def __init__(self, image: np.ndarray, draws: int = DRAWS, seed: int = 0) -> None:
        self._image = np.asarray(image, int)
        self._count = int(self._image.max(initial=-1)) + 1
        rng = np.random.default_rng(seed)
        self._weights = np.zeros((draws, self._count), np.uint16)  # how often each resample holds an image
        for weights in self._weights if self._count else ():
            weights += np.bincount(rng.integers(self._count, size=self._count), minlength=self._count).astype(np.uint16)

    def ratio(self, top: np.ndarray, bottom: np.ndarray) -> Drawn:
        """Return the sum of ``top`` (R, Q) over the questions divided by that of ``bottom`` (R, Q) or (Q,)."""
        top, bottom = np.atleast_2d(top).astype(float), np.atleast_2d(bottom).astype(float)
        draws = _divide(self._sums(top), self._sums(bottom))
        return Drawn(_divide(top.sum(axis=1), bottom.sum(axis=1)), draws)

    def _sums(self, values: np.ndarray) -> np.ndarray:
        """Return (B, R): the sums of ``values`` (R, Q) over the images of each resample."""
        per_image = np.stack([np.bincount(self._image, row, minlength=self._count) for row in values], axis=1)  # (C, R)
        step = max(1, BLOCK // max(1, self._count))
        blocks = [self._weights[i : i + step].astype(float) @ per_image for i in range(0, len(self._weights), step)]
        return np.concatenate(blocks)


def _divide(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    top, bottom = np.broadcast_arrays(top, bottom)
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0)


@dataclass(frozen=True)
class Paired:
    """Comparison of two runs on the same questions.

    Attributes:
        won: number of questions that only the first run got right.
        lost: number of questions that only the second run got right.
        mcnemar: exact two-sided p-value of McNemar's test.
        accuracy, miou: differences, first minus second, with their intervals.
        accuracy_p, miou_p: p-values of the bootstrap.
        on_object: difference of the shares of boxes that lie on the true object (IoU above ON_OBJECT), likewise.
    """

    won: int
    lost: int
    mcnemar: float
    accuracy: Estimate
    accuracy_p: float
    miou: Estimate
    miou_p: float
    on_object: Estimate


def pair(
    right: np.ndarray, iou: np.ndarray, other_right: np.ndarray, other_iou: np.ndarray, resampling: Resampling
) -> Paired:
    """Compare two runs on questions that all have a true box.

    Args:
        right, iou: (Q,) bool and float, outcomes of the first run.
        other_right, other_iou: (Q,) outcomes of the second run.
        resampling: resamples of the questions' images.
    """
    every = np.ones(len(right))
    accuracy = resampling.ratio(right, every) - resampling.ratio(other_right, every)
    miou = resampling.ratio(iou, every) - resampling.ratio(other_iou, every)
    on, other_on = (np.asarray(values > ON_OBJECT, float) for values in (iou, other_iou))
    on_object = resampling.ratio(on, every) - resampling.ratio(other_on, every)
    won, lost = int((right & ~other_right).sum()), int((other_right & ~right).sum())
    return Paired(
        won,
        lost,
        mcnemar(won, lost),
        accuracy.estimates()[0],
        float(accuracy.p_values()[0]),
        miou.estimates()[0],
        float(miou.p_values()[0]),
        on_object.estimates()[0],
    )


def mcnemar(won: int, lost: int) -> float:
    """Return the exact two-sided p-value of McNemar's test for ``won`` against ``lost`` discordant questions.

    Raises:
        ValueError: a count is below 0.
    """
    if won < 0 or lost < 0:
        raise ValueError(f"counts of questions cannot be below 0, got {won} and {lost}")
    count = won + lost
    tail = sum(math.comb(count, k) for k in range(min(won, lost) + 1))
    return min(1.0, 2 * tail / 2**count)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values after Holm's correction for multiple tests, in the same order."""
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


@dataclass(frozen=True)
class Bin:
    """A bin of a calibration: number of boxes, mean ``stated`` score, and share of ``right`` boxes."""

    count: int
    stated: float
    right: float


@dataclass(frozen=True)
class CalibrationReport:
    """Calibration of the scores of ``count`` boxes.

    Attributes:
        count: number of boxes.
        error: expected calibration error (ECE; Guo et al., "On Calibration of Modern Neural Networks", 2017): mean gap
            between score and share of right boxes over ten bins of equal width, weighted by the number of boxes. It is
            the calibration error of every command.
        brier: mean squared error of the score.
        bins: the bins that are not empty.
    """

    count: int
    error: float
    brier: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class RiskCoverage:
    """Accuracy of the kept predictions by the share that is kept, the highest scores first.

    Attributes:
        coverage: (K,) kept share for each distinct score, ascending. Questions without a prediction come last, as
            wrong.
        accuracy: (K,) accuracy of the kept predictions.
        area: area under the curve of risk (1 - accuracy) over coverage; 0 for a perfect method.
    """

    coverage: np.ndarray
    accuracy: np.ndarray
    area: float

    def accuracy_at(self, coverage: float) -> float:
        """Return the accuracy when the share ``coverage`` in (0, 1] is kept, interpolated between predictions of equal
        score."""
        right = np.interp(coverage, [0.0, *self.coverage], [0.0, *(self.coverage * self.accuracy)])
        return float(right) / coverage


def calibration(score: np.ndarray, hit: np.ndarray, bins: int = BINS) -> CalibrationReport | None:
    """Return the calibration of boxes; None if none has a score.

    Args:
        score: (M,) in [0, 1]; NaN for boxes without a score, which are left out.
        hit: (M,) bool, whether the box is right.
        bins: number of bins of equal width.
    """
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
    return CalibrationReport(len(score), error, float(((score - right) ** 2).mean()), tuple(found))


def auroc(score: np.ndarray, right: np.ndarray) -> float | None:
    """Return the area under the ROC curve: the probability that a right answer has a higher score than a wrong one,
    where equal scores count half. None if all are right or all are wrong.

    Args:
        score: (M,) finite scores.
        right: (M,) bool, whether the answer is right.
    """
    right = np.asarray(right, bool)
    good, bad = int(right.sum()), int((~right).sum())
    if not good or not bad:
        return None
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # mean rank, from 1, of each distinct score
    return float((ranks[place][right].sum() - good * (good + 1) / 2) / (good * bad))


def risk_coverage(score: np.ndarray, right: np.ndarray, answered: np.ndarray) -> RiskCoverage | None:
    """Return the risk-coverage curve over Q questions; predictions with equal scores are kept or dropped together.

    Args:
        score: (Q,) score of the prediction.
        right: (Q,) whether it is right.
        answered: (Q,) whether there is a prediction.

    Returns:
        The curve; None if there is no prediction, or one without a score.
    """
    if not answered.any() or not np.isfinite(score[answered]).all():
        return None
    key = np.where(answered, score, -1.0)  # questions without a prediction get a key below every score
    levels, group, sizes = np.unique(-key, return_inverse=True, return_counts=True)
    hits = np.bincount(group, (right & answered).astype(float), minlength=len(levels))
    kept, found = sizes.cumsum(), hits.cumsum()
    # The order within equal scores is arbitrary, so each prediction counts as the mean of its group.
    expected = np.repeat(hits / sizes, sizes).cumsum() / np.arange(1, len(score) + 1)
    return RiskCoverage(kept / len(score), found / kept, float((1 - expected).mean()))
