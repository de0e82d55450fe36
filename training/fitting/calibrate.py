"""Calibration: from the evidence for a selector's box to the probability that it has IoU >= 0.5 with an object that was
asked for, and to its expected IoU."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.isotonic import IsotonicRegression

from acs_core.artifacts.calibration import Calibration, CalibrationImages
from acs_core.artifacts.identity import ModelIdentity
from acs_core.evaluation.statistics import auroc, calibration
from acs_core.selection.registry import Selector
from training.collection.offline_selection import Call, calls
from training.collection.store import Collection
from training.errors import DataError
from training.fitting.fit_presence import fit_presence, out_of_fold_presence, presence_rows
from training.fitting.fit_score_model import FOLDS, HIT, fit_score_model, folds, out_of_fold_estimates
from training.fitting.score_rows import has_tokens, names_for, score_rows
from training.fitting.thresholds import guaranteed_points

MIN_CHOICES = 50
MODEL_ANSWERS = 200  # minimum number of answers for a score model
CERTAIN = 0.01, 0.99  # a few hundred pairs never justify certainty
TILT = 0.005  # largest shift of the ends of a step of a curve


@dataclass(frozen=True)
class Reliability:
    """Reliability of calibrated probabilities on images that neither score model nor curve were fitted to.

    The images are divided into ``FOLDS`` parts; what is fitted to the other parts rates each part.

    Attributes:
        stated: (C,) probability of each answered question.
        hit: (C,) whether its box has IoU >= 0.5.
        error: expected calibration error, in [0, 1].
        expected_iou_error: mean absolute error of the expected IoU.
        unanswered: number of questions without a box.
        auroc: area under the ROC curve of right against wrong answers, in [0, 1]; None if all are right or all wrong.
        auroc_confidence: the same for the selector's confidence alone.
        auroc_all: the same for the score over all questions; those without a box count as wrong, with score 0.
    """

    stated: np.ndarray
    hit: np.ndarray
    error: float
    expected_iou_error: float
    unanswered: int
    auroc: float | None = None
    auroc_confidence: float | None = None
    auroc_all: float | None = None


def calibrate(
    selector: Selector,
    data: Collection,
    identity: ModelIdentity,
    made_by: str,
    seed: int = 0,
    looked_again: Iterable[Call] | None = None,
    answers: Sequence[Mapping[str, Any]] = (),
    plain: bool = False,
    presence: bool = False,
) -> tuple[Calibration, Reliability]:
    """Fit a calibration on the published boxes of ``data``: a score model, and rising curves of its estimates
    (:func:`rising_curve`).

    Only published boxes are used, because the best of many candidates is rated too high.

    Args:
        selector: the selector.
        data: collection of images that were not used to make the selector, with questions about absent objects for
            scores that count absence.
        identity: the model.
        made_by: origin of the calibration, for its metadata.
        seed: seed of the folds.
        looked_again: calls of pairs of ``data`` with a second look (:mod:`training.collection.second_look`); then the
            calibration is for answers with a second look.
        answers: the responses of the collection (:func:`training.collection.store.read_responses`), for the labels of
            the boxes and the certainty of the tokens.
        plain: whether the curves map the confidence alone, without a score model, as they do with fewer than
            ``MODEL_ANSWERS`` answers.
        presence: whether to fit a presence probe, whose estimate is one more feature of the score model; without a
            score model, the calibration holds none.

    Raises:
        DataError: the selector states no confidence, fewer than 50 questions got a box, or a presence probe is wanted
            and cannot be fitted.
    """
    if not selector.feature:
        raise DataError(f"the selector {selector.name} states no confidence, so there is nothing to calibrate")
    second = looked_again is not None
    if looked_again is None:
        looked_again = calls(data, selector.needs.maps, answers)
    probe, told_presence = None, None
    if presence:
        pairs, hidden, there, image = presence_rows(data, answers)
        probe = fit_presence(hidden, there)
        told_presence = dict(zip(pairs, out_of_fold_presence(hidden, there, image, seed).tolist(), strict=True))
    names = names_for(selector, has_tokens(answers), presence)
    rows = score_rows(selector, looked_again, data, names, presence=told_presence)
    complete = np.flatnonzero(rows.complete)
    if len(complete) < MIN_CHOICES:
        answered = "answers with a second look" if second else "answered pairs"
        raise DataError(f"{len(complete)} {answered} are too few to calibrate {selector.name}: at least {MIN_CHOICES}")
    iou, confidence = rows.iou[complete], rows.confidence[complete]
    hit = (iou >= HIT).astype(float)
    fold = folds(rows.image, seed)
    model = None
    estimate = confidence
    if not plain and len(complete) >= MODEL_ANSWERS and len(np.unique(fold)) > 1:
        estimate = out_of_fold_estimates(rows, fold, seed)[complete]
        model = fit_score_model(rows, np.ones(len(rows.iou), bool), seed)
    stated, expected = _out_of_fold(estimate, iou, fold[complete])
    x, y = _knots(*rising_curve(estimate, hit, *CERTAIN))
    iou_x, iou_y = _knots(*rising_curve(estimate, iou, 0.0, 1.0))
    none = np.zeros(rows.unanswered)
    told = Reliability(
        stated,
        hit,
        calibration_error(stated, hit),
        float(np.abs(expected - iou).mean()),
        rows.unanswered,
        auroc(stated, hit),
        auroc(confidence, hit),
        auroc(np.concatenate([stated, none]), np.concatenate([hit, none])),
    )
    curve = Calibration(
        identity,
        selector.name,
        selector.feature,
        x,
        y,
        len(complete),
        made_by,
        iou_x,
        iou_y,
        second_look=second,
        images=images_of(data),
        score_model=model,
        questions=len(complete) + rows.unanswered,
        absent=rows.absent,
        presence=probe if model is not None else None,
    )
    return replace(curve, working_points=guaranteed_points(curve, estimate, hit)), told


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


def _out_of_fold(estimate: np.ndarray, iou: np.ndarray, fold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities and expected IoU, (C,) each, from curves that were fitted without the candidate's image."""
    stated, expected = np.zeros(len(iou)), np.zeros(len(iou))
    for k in range(FOLDS):
        here, others = fold == k, fold != k
        if here.any() and others.any():
            x, y = estimate[others], iou[others]
            stated[here] = np.interp(estimate[here], *rising_curve(x, (y >= HIT).astype(float), *CERTAIN))
            expected[here] = np.interp(estimate[here], *rising_curve(x, y, 0.0, 1.0))
    return stated, expected


def rising_curve(x: np.ndarray, y: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the knots (x, y), (K,) each, of a rising curve for the points (x, y), (C,) each, with y in [low, high].

    Isotonic regression gives steps, on which different confidences get one score. Each step is tilted here, by at most
    TILT at its ends and at most a quarter of the distance to the next step, so that scores keep the order of the
    confidences. A step at a single x is one knot.
    """
    steps = IsotonicRegression(y_min=low, y_max=high).fit(x, y).predict(x)
    level, of = np.unique(np.round(steps, 9), return_inverse=True)
    begin, end = (np.array([edge(x[of == k]) for k in range(len(level))]) for edge in (np.min, np.max))
    gaps = np.diff(level, prepend=-np.inf, append=np.inf)
    tilt = np.where(begin < end, np.minimum(TILT, np.minimum(gaps[:-1], gaps[1:]) / 4), 0.0)
    knots, first = np.unique(np.stack([begin, end], axis=1).ravel(), return_index=True)
    return knots, np.clip(np.stack([level - tilt, level + tilt], axis=1).ravel()[first], low, high)


def _knots(x: np.ndarray, y: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    x, keep = np.unique(np.round(x, 6), return_index=True)
    y = np.maximum.accumulate(np.round(y[keep], 6))
    return tuple(x.tolist()), tuple(y.tolist())
