"""Calibration: curves from a selector's confidence to the probability that its chosen box has IoU >= 0.5, and to the
expected IoU of that box."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.isotonic import IsotonicRegression

from acs_core.artifacts.calibration import Calibration, CalibrationImages
from acs_core.artifacts.identity import ModelIdentity
from acs_core.evaluation.statistics import calibration
from acs_core.selection.registry import Selector
from training.collection.offline_selection import Call, choices_of, choose_offline
from training.collection.store import Collection
from training.errors import DataError
from training.fitting.thresholds import guaranteed_points

MIN_CHOICES = 50
HIT = 0.5  # minimum IoU of a right box
FOLDS = 5
CERTAIN = 0.01, 0.99  # a few hundred pairs never justify certainty


@dataclass(frozen=True)
class Reliability:
    """Reliability of calibrated probabilities on images that their curves were not fitted to.

    The images are divided into ``FOLDS`` parts; a curve fitted to the other parts rates each part.

    Attributes:
        stated: (C,) probability of each answered pair.
        hit: (C,) whether its box has IoU >= 0.5.
        error: expected calibration error, in [0, 1].
        expected_iou_error: mean absolute error of the expected IoU.
        unanswered: number of pairs without a box.
    """

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
    answers: Sequence[Mapping[str, Any]] = (),
) -> tuple[Calibration, Reliability]:
    """Fit a calibration by isotonic regression on the chosen boxes of ``data``.

    Only chosen boxes are used, because only they are published and the best of many candidates is rated too high.

    Args:
        selector: the selector.
        data: collection of images that were not used to make the selector.
        identity: the model.
        made_by: origin of the calibration, for its metadata.
        seed: seed of the folds.
        looked_again: calls of pairs of ``data`` with a second look (:mod:`training.collection.second_look`); then the
            calibration is for answers with a second look.
        answers: the responses of the collection (:func:`training.collection.store.read_responses`), for the labels of
            the boxes; see :func:`training.collection.offline_selection.choose_offline`.

    Raises:
        DataError: the selector states no confidence, or fewer than 50 pairs got a box.
    """
    if not selector.feature:
        raise DataError(f"the selector {selector.name} states no confidence, so there is nothing to calibrate")
    second = looked_again is not None
    if looked_again is None:
        choices = choose_offline(selector, data, answers=answers)
    else:
        choices = choices_of(selector, looked_again, data)
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
        second_look=second,
        images=images_of(data),
    )
    return replace(curve, working_points=guaranteed_points(curve, confidence, hit)), told


def images_of(data: Collection) -> CalibrationImages | None:
    """Return the images of the collected pairs of ``data``; None if its manifest does not name them."""
    keys, pictures = data.manifest.get("pairs"), data.manifest.get("pictures") or ()
    try:
        ids = {int(keys[i].partition(":")[0]) for i in data.pairs.tolist()} if keys else set()
    except (IndexError, ValueError):
        return None
    if not ids:
        return None
    digests = {str(pictures[i]) for i in data.pairs.tolist()} - {""} if pictures else set()
    return CalibrationImages(str(data.manifest.get("data", "")), tuple(sorted(ids)), tuple(sorted(digests)))


def calibration_error(probability: np.ndarray, hit: np.ndarray) -> float:
    """Compute the expected calibration error (ECE) of :func:`acs_core.evaluation.statistics.calibration`, in [0, 1]; 0
    without any answer."""
    found = calibration(probability, hit)
    return found.error if found else 0.0


def reliability_groups(probability: np.ndarray, hit: np.ndarray) -> list[tuple[float, float, int]]:
    """Return (mean stated probability, observed share of hits, size) of the bins of :func:`calibration_error`."""
    found = calibration(probability, hit)
    return [(b.stated, b.right, b.count) for b in found.bins] if found else []


def _out_of_fold(
    confidence: np.ndarray, iou: np.ndarray, images: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities and expected IoU, (C,) each, from curves that were fitted without the candidate's image."""
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
