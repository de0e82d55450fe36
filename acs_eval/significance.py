"""Whether one method is better than another on the same questions, or only luckier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from acs_eval.bootstrap import Estimate, Resampling


@dataclass(frozen=True)
class Paired:
    """One run against another on the same questions.

    ``won`` questions only it got right, ``lost`` only the other did; ``mcnemar`` is the exact p-value of that split.
    ``accuracy`` and ``miou`` are the differences, with intervals over pictures, ``accuracy_p`` and ``miou_p`` the
    p-values of the same bootstrap.
    """

    won: int
    lost: int
    mcnemar: float
    accuracy: Estimate
    accuracy_p: float
    miou: Estimate
    miou_p: float


def pair(
    right: np.ndarray, iou: np.ndarray, other_right: np.ndarray, other_iou: np.ndarray, resampling: Resampling
) -> Paired:
    """A run with ``right`` (Q,) and ``iou`` (Q,) against another one, over questions that all have a true box."""
    every = np.ones(len(right))
    accuracy = resampling.ratio(right, every) - resampling.ratio(other_right, every)
    miou = resampling.ratio(iou, every) - resampling.ratio(other_iou, every)
    won, lost = int((right & ~other_right).sum()), int((other_right & ~right).sum())
    return Paired(
        won,
        lost,
        mcnemar(won, lost),
        accuracy.estimates()[0],
        float(accuracy.p_values()[0]),
        miou.estimates()[0],
        float(miou.p_values()[0]),
    )


def mcnemar(won: int, lost: int) -> float:
    """Exact two-sided p-value: how often fair coins split ``won + lost`` disagreements at least as unevenly.

    Raises:
        ValueError: a count below 0.
    """
    if won < 0 or lost < 0:
        raise ValueError(f"counts of questions cannot be below 0, got {won} and {lost}")
    count = won + lost
    tail = sum(math.comb(count, k) for k in range(min(won, lost) + 1))
    return min(1.0, 2 * tail / 2**count)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values after Holm's correction for asking so many questions at once, in the same order."""
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
