"""Fits the curves from a selector's confidence to the probability that its chosen box has IoU >= 0.5, and to the IoU
that it can be expected to have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from sklearn.isotonic import IsotonicRegression

from acs_core.calibration import Calibration, WorkingPoint
from acs_core.identity import ModelIdentity
from acs_core.selection import Selector
from training.errors import DataError
from training.offline_choice import Call, choices_of, choose_offline
from training.store import Collection

MIN_CHOICES = 50
HIT = 0.5  # IoU from which on a box counts as right
FOLDS = 5
MIN_KEPT = 20  # boxes that a precision is measured on
PRECISIONS = (0.5, 0.6, 0.7, 0.8, 0.9)
CERTAIN = 0.01, 0.99  # a few hundred pairs never justify certainty


@dataclass(frozen=True)
class Reliability:
    """How well stated probabilities hold on images that they were not fitted on (``FOLDS`` parts of the images, each
    judged by a curve of the others): ``stated`` and ``hit`` (C,) of every answered pair, and their ``error``.
    ``expected_iou_error`` is the mean absolute error of the expected IoU, ``unanswered`` the number of pairs without a
    box."""

    stated: np.ndarray
    hit: np.ndarray
    error: float
    expected_iou_error: float
    unanswered: int


def calibrate(
    selector: Selector,
    data: Collection,
    identity: ModelIdentity,
    made_by: str,
    seed: int = 0,
    looked_again: Iterable[Call] | None = None,
) -> tuple[Calibration, Reliability]:
    """Isotonic regression over the *chosen* boxes of ``data``, which must be images that the selector was not made
    from. The chosen ones alone: of many candidates the best-looking one looks too good, and it is what is published.

    ``looked_again``: calls about pairs of ``data`` that came with a second look (:mod:`training.second_look`); then the
    curve is for such answers.

    Raises:
        DataError: the selector states no confidence, or fewer than 50 pairs got a box.
    """
    if not selector.feature:
        raise DataError(f"the selector {selector.name} states no confidence, so there is nothing to calibrate")
    second = looked_again is not None
    choices = choose_offline(selector, data) if looked_again is None else choices_of(selector, looked_again, data)
    known = np.isfinite(choices.confidence)
    count = int(known.sum())
    if count < MIN_CHOICES:
        answered = "answers with a second look" if second else "answered pairs"
        raise DataError(f"{count} {answered} are too few to calibrate {selector.name}: at least {MIN_CHOICES}")
    confidence, iou, images = choices.confidence[known], choices.iou[known], choices.image[known]
    hit = (iou >= HIT).astype(float)
    stated, expected = _out_of_fold(confidence, iou, images, seed)
    told = Reliability(
        stated,
        hit,
        calibration_error(stated, hit),
        float(np.abs(expected - iou).mean()),
        int((~known).sum()),
    )
    x, y = _knots(_curve(confidence, hit, *CERTAIN))
    iou_x, iou_y = _knots(_curve(confidence, iou, 0.0, 1.0))
    curve = Calibration(
        identity,
        selector.name,
        selector.feature,
        x,
        y,
        count,
        made_by,
        iou_x,
        iou_y,
        working_points(stated, hit),
        second,
    )
    return curve, told


def working_points(stated: np.ndarray, hit: np.ndarray) -> tuple[WorkingPoint, ...]:
    """For each wanted precision the lowest threshold on ``stated`` (C,) from which on at least so many of the kept
    boxes are right, and the share of answered pairs it keeps. A precision that no threshold with twenty kept boxes
    reaches is left out."""
    order = np.argsort(-stated, kind="stable")
    kept = np.arange(1, len(order) + 1)
    precision = np.cumsum(hit[order]) / kept
    threshold = stated[order]
    last = np.append(threshold[1:] < threshold[:-1], True)  # equal scores are kept or left together
    points = []
    for wanted in PRECISIONS:
        good = np.flatnonzero((precision >= wanted) & last & (kept >= MIN_KEPT))
        if len(good):
            k = good[-1]
            measured = (threshold[k], precision[k], kept[k] / len(hit))
            points.append(WorkingPoint(wanted, *(round(float(v), 4) for v in measured)))
    return tuple(points)


def calibration_error(probability: np.ndarray, hit: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error: mean gap between stated and observed share of hits, over ``bins`` equal groups by
    rank, weighted by their size; in [0, 1]."""
    groups = reliability_groups(probability, hit, bins)
    return sum(n * abs(stated - observed) for stated, observed, n in groups) / max(1, len(hit))


def reliability_groups(probability: np.ndarray, hit: np.ndarray, bins: int = 10) -> list[tuple[float, float, int]]:
    """(mean stated probability, observed share of hits, size) of ``bins`` equal groups by rank."""
    order = np.argsort(probability, kind="stable")
    groups = [g for g in np.array_split(order, bins) if len(g)]
    return [(float(probability[g].mean()), float(hit[g].mean()), len(g)) for g in groups]


def _out_of_fold(
    confidence: np.ndarray, iou: np.ndarray, images: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and expected IoU (C,) each, stated by curves that did not see the image."""
    unique, inverse = np.unique(images, return_inverse=True)
    fold = np.random.default_rng(seed).permutation(len(unique))[inverse] % FOLDS
    stated, expected = np.zeros(len(iou)), np.zeros(len(iou))
    for k in range(FOLDS):
        here, others = fold == k, fold != k
        if here.any() and others.any():
            x, y = confidence[others], iou[others]
            stated[here] = _curve(x, (y >= HIT).astype(float), *CERTAIN).predict(confidence[here])
            expected[here] = _curve(x, y, 0.0, 1.0).predict(confidence[here])
    return stated, expected


def _curve(x: np.ndarray, y: np.ndarray, low: float, high: float) -> IsotonicRegression:
    return IsotonicRegression(y_min=low, y_max=high, out_of_bounds="clip").fit(x, y)


def _knots(curve: IsotonicRegression) -> tuple[tuple[float, ...], tuple[float, ...]]:
    x, keep = np.unique(np.round(curve.X_thresholds_, 6), return_index=True)
    y = np.maximum.accumulate(np.round(curve.y_thresholds_[keep], 6))
    return tuple(x.tolist()), tuple(y.tolist())
