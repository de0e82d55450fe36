"""Confidence intervals by resampling pictures: questions about one picture are not independent of each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DRAWS = 2000
LEVEL = 0.95
BLOCK = 4_000_000  # weights that are floats at a time


@dataclass(frozen=True)
class Estimate:
    """A number and the interval that covers it in 95 of 100 samples of pictures. NaN where nothing defines it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Drawn:
    """A statistic of R runs: its ``value`` (R,), and ``draws`` (B, R) of it on resampled pictures."""

    value: np.ndarray
    draws: np.ndarray

    def __sub__(self, other: Drawn) -> Drawn:
        return Drawn(self.value - other.value, self.draws - other.draws)

    def relative_to(self, other: Drawn) -> Drawn:
        """The gain over ``other``, as a share of it."""
        return Drawn(_divide(self.value, other.value) - 1, _divide(self.draws, other.draws) - 1)

    def run(self, index: int) -> Drawn:
        """The statistic of one run alone, with R = 1."""
        return Drawn(self.value[index : index + 1], self.draws[:, index : index + 1])

    def estimates(self) -> list[Estimate]:
        """Value and percentile interval of each run."""
        ends = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
        found = []
        for value, draws in zip(self.value, self.draws.T, strict=True):
            known = draws[np.isfinite(draws)]
            low, high = np.percentile(known, ends) if len(known) else (np.nan, np.nan)
            found.append(Estimate(float(value), float(low), float(high)))
        return found

    def p_values(self) -> np.ndarray:
        """(R,): how often so large a value comes about if the true one is 0, of both signs; at least 2 / (B + 1).
        Ask it of differences."""
        below, above = (1 + (self.draws <= 0).sum(axis=0)), (1 + (self.draws >= 0).sum(axis=0))
        return np.minimum(1.0, 2 * np.minimum(below, above) / (1 + len(self.draws)))


class Resampling:
    """The same ``draws`` samples of pictures for every statistic, so that differences are paired.

    ``image`` (Q,) numbers each question's picture from 0 on.
    """

    def __init__(self, image: np.ndarray, draws: int = DRAWS, seed: int = 0) -> None:
        self._image = np.asarray(image, int)
        self._count = int(self._image.max(initial=-1)) + 1
        rng = np.random.default_rng(seed)
        self._weights = np.zeros((draws, self._count), np.uint16)  # how often a draw holds a picture
        for weights in self._weights if self._count else ():
            weights += np.bincount(rng.integers(self._count, size=self._count), minlength=self._count).astype(np.uint16)

    def ratio(self, top: np.ndarray, bottom: np.ndarray) -> Drawn:
        """The sum of ``top`` (R, Q) over the questions through that of ``bottom`` (R, Q) or (Q,)."""
        top, bottom = np.atleast_2d(top).astype(float), np.atleast_2d(bottom).astype(float)
        draws = _divide(self._sums(top), self._sums(bottom))
        return Drawn(_divide(top.sum(axis=1), bottom.sum(axis=1)), draws)

    def _sums(self, values: np.ndarray) -> np.ndarray:
        """(B, R) sums of ``values`` (R, Q) over each draw's pictures."""
        per_image = np.stack([np.bincount(self._image, row, minlength=self._count) for row in values], axis=1)  # (C, R)
        step = max(1, BLOCK // max(1, self._count))
        blocks = [self._weights[i : i + step].astype(float) @ per_image for i in range(0, len(self._weights), step)]
        return np.concatenate(blocks)


def _divide(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    top, bottom = np.broadcast_arrays(top, bottom)
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0)
