"""Thresholds on the score that keep a wanted precision, with 95 % confidence.

A threshold at which the calibration images happen to show the wanted precision keeps it on new images in about half of
all cases, and one that was picked among many in fewer. Here a threshold counts if the opposite, a precision at or below
the wanted one, is refuted by an exact binomial test (the one-sided bound of Clopper and Pearson), and the error of the
search over thresholds is controlled as a whole: "Learn then test" (Angelopoulos et al., 2021) with fixed sequences.

The bound holds for answers that are independent and of the kind of the calibration images. Answers about one image are
not quite independent. With a score model the bound is approximate: the confidence is then an estimate of models that
were fitted without the image of the answer but to other answers; thresholds are used with a model fitted to all.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import binom

from acs_core.artifacts.calibration import Calibration, WorkingPoint

PRECISIONS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
ERROR = 0.05  # probability that any threshold misses its precision
FIRST = 30  # answers kept at the first threshold that is tested; further sequences begin at twice, four times, ...


def guaranteed_points(curve: Calibration, confidence: np.ndarray, hit: np.ndarray) -> tuple[WorkingPoint, ...]:
    """Return, for each precision of PRECISIONS, the lowest threshold on the score that keeps it; precisions for which
    there are too few answers, or too many wrong ones, are left out.

    Thresholds are tested on the confidence, whose order does not depend on ``hit`` as that of the score does. A
    sequence of tests begins with a fixed number of the most confident answers, and adds less confident ones until a
    test fails.

    Args:
        curve: the calibration, whose scores the thresholds are for.
        confidence: (C,) confidence of each answer.
        hit: (C,) whether its box is right.
    """
    order = np.argsort(-confidence, kind="stable")
    x, score, right = confidence[order], curve.apply(confidence[order]), np.cumsum(hit[order].astype(bool))
    kept = np.flatnonzero(np.append(x[1:] < x[:-1], True)) + 1  # numbers of answers: equal ones together
    # a threshold on the score keeps all answers of one score
    possible = np.append(score[1:] < score[:-1], True)[kept - 1]
    points = []
    for wanted in PRECISIONS:
        good = np.flatnonzero(_refuted(kept, right[kept - 1], wanted) & possible)
        if len(good):
            count = int(kept[good[-1]])
            precision, share = (round(float(v), 4) for v in (right[count - 1] / count, count / len(x)))
            points.append(WorkingPoint(wanted, float(score[count - 1]), precision, share, count))
    return tuple(points)


def _refuted(kept: np.ndarray, right: np.ndarray, wanted: float) -> np.ndarray:
    """Return for which thresholds a precision of at most ``wanted`` is refuted, bool; ``right`` of the ``kept`` answers
    are right at each."""
    chance = binom.sf(right - 1, kept, wanted)  # of so many right ones or more, if the precision is ``wanted``
    starts = [FIRST]
    while 2 * starts[-1] <= kept[-1]:
        starts.append(2 * starts[-1])
    refuted = np.zeros(len(kept), bool)
    for start in starts:
        begin = int(np.searchsorted(kept, start))
        failed = np.flatnonzero(chance[begin:] > ERROR / len(starts))
        refuted[begin : begin + int(failed[0]) if len(failed) else len(kept)] = True
    return refuted
