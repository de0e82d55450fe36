"""Calibration: mapping of a selector's confidence to the estimated probability that the box has IoU >= 0.5.

A calibration is a non-decreasing, piecewise linear curve, fitted offline on images that the selector was not fitted on:
isotonic regression, whose steps are tilted so that scores keep the order of the confidences. It belongs to one LVLM,
one selector and one kind of confidence. With a score model (:mod:`acs_core.artifacts.score_model`), the curve maps that
model's estimate instead of the confidence itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from acs_core import arguments
from acs_core.artifacts.identity import ModelIdentity, ModelInfo
from acs_core.artifacts.json_io import number, read_object
from acs_core.artifacts.presence import PresenceProbe
from acs_core.artifacts.score_model import ScoreModel
from acs_core.errors import CalibrationError
from acs_core.output import write_text
from acs_core.plain_text import shorten

SCHEMA_VERSION = 2
FIRST_VERSION = 1  # without score models and absent questions
MAX_KNOTS = 10_000
COUNTS = ("num_samples", "questions", "absent")
SHARES = ("wanted", "min_score", "precision", "kept")  # fields of working points that are in [0, 1]
ROUNDING = 1e-4  # of measured shares, which files store with four digits
MAX_ID = 2**53
_DIGEST = re.compile("[0-9a-f]{16}")
T = TypeVar("T")
ADVICE = "Make one with `acs-train build`, or pass another with calibration=..."


@dataclass(frozen=True)
class WorkingPoint:
    """A threshold for abstaining, found on images that the selector was not fitted to.

    Attributes:
        wanted: wanted precision, in [0, 1]. It is reached with 95 % confidence (``training.fitting.thresholds``) if
            ``answers`` is above 0.
        min_score: the threshold, in [0, 1].
        precision: measured share of boxes with IoU >= 0.5 among those with at least ``min_score``.
        kept: share of the answered questions whose box has at least ``min_score``.
        answers: number of answers with at least ``min_score``, which stand behind the threshold; 0 in files of earlier
            versions, whose thresholds were measured without a bound.
    """

    wanted: float
    min_score: float
    precision: float
    kept: float
    answers: int = 0


@dataclass(frozen=True)
class CalibrationImages:
    """Images that a calibration was fitted on, so that it is not judged on them.

    Attributes:
        data: name of their annotations ("val/instances.json").
        ids: their ids in these annotations.
        pictures: first 16 hexadecimal digits of the SHA-256 of their files; may be fewer than ``ids``.
    """

    data: str
    ids: tuple[int, ...]
    pictures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Calibration:
    """A piecewise linear curve through the knots ``(x[i], y[i])``, constant outside them.

    Attributes:
        identity: the LVLM it was made for.
        selector: name of the selector.
        feature: kind of confidence (``Selector.feature``).
        x: confidence of the knots, strictly increasing.
        y: probability of the knots, in [0, 1], non-decreasing.
        num_samples: number of candidates it was fitted on.
        made_by: how it was made.
        iou_x, iou_y: knots of a second curve, to the expected IoU; empty if there is none.
        working_points: thresholds for wanted precisions.
        second_look: whether it is for results with a second look (:mod:`acs_core.selection.second_look`).
        images: the images that it was fitted on; None if they are not known.
        score_model: model whose estimate the curves map; None if they map the confidence.
        questions: number of questions that were asked for it, including those without a box; 0 if it is not known.
        absent: number of these questions about objects that the image does not show.
        presence: probe of the model's hidden state whose estimate is a feature of the score model; None without one.

    Raises:
        CalibrationError: the knots are not such a curve, or the working points not such thresholds.
    """

    identity: ModelIdentity
    selector: str
    feature: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    num_samples: int = 0
    made_by: str = ""
    iou_x: tuple[float, ...] = ()
    iou_y: tuple[float, ...] = ()
    working_points: tuple[WorkingPoint, ...] = ()
    second_look: bool = False
    images: CalibrationImages | None = None
    score_model: ScoreModel | None = None
    questions: int = 0
    absent: int = 0
    presence: PresenceProbe | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.absent <= self.questions <= arguments.MAX_COUNT:
            raise CalibrationError(
                f'fields "questions" and "absent" must be numbers of questions, got {self.questions} and {self.absent}'
            )
        _check_curve("x", self.x, "y", self.y)
        if self.iou_x or self.iou_y:
            _check_curve("iou_x", self.iou_x, "iou_y", self.iou_y)
        _check_points(self.working_points)

    @property
    def counts_absent(self) -> bool:
        """Whether questions about absent objects were among those that it was fitted on. If not, it estimates the
        probability on condition that the object is there."""
        return self.absent > 0

    @property
    def features(self) -> tuple[str, ...]:
        """Features that the score model reads; () without one."""
        return self.score_model.features if self.score_model else ()

    def apply(self, confidences: np.ndarray) -> np.ndarray:
        """Map confidences (C,), or estimates of the score model, to probabilities (C,), float64 in [0, 1]."""
        return np.interp(np.asarray(confidences, dtype=np.float64), self.x, self.y)

    def expected_iou(self, confidences: np.ndarray) -> np.ndarray | None:
        """Map confidences (C,), or estimates of the score model, to expected IoUs (C,), float64 in [0, 1]; None if the
        file has no such curve."""
        if not self.iou_x:
            return None
        return np.interp(np.asarray(confidences, dtype=np.float64), self.iou_x, self.iou_y)

    def working_point(self, precision: float) -> WorkingPoint | None:
        """Return the lowest threshold that keeps at least the given precision with 95 % confidence.

        Returns None if there is none: the file is of an earlier version, without bounds, or there were too few answers,
        or too many wrong ones.
        """
        good = [p for p in self.working_points if p.wanted >= precision and p.answers]
        return min(good, key=lambda p: p.wanted, default=None)

    def check(self, lvlm: ModelInfo, selector: str, feature: str, second_look: bool = False) -> None:
        """Check that the curve was made for this LVLM, selector, kind of confidence, and number of looks, and for
        confidences in [0, 1], and that its presence probe reads as many numbers as the LVLM's hidden states have.

        Raises:
            CalibrationError: it was not; the message says what differs.
        """
        problem = self.identity.mismatch(lvlm)
        if problem is None and self.selector != selector:
            problem = f"it was made for the selector {self.selector}, not {selector}"
        if problem is None and self.feature != feature:
            problem = f"it maps {self.feature!r}, but {selector} gives {feature!r}"
        if problem is None and self.second_look != second_look:
            made, wanted = ("a second look" if second else "one look" for second in (self.second_look, second_look))
            problem = f"it was made for answers of {made}, not of {wanted}"
        if problem is None and self.presence is not None:
            reads, has = len(self.presence.weights), lvlm.hidden_size
            if has is not None and reads != has:
                problem = f"its presence probe reads hidden states of {reads} numbers, those of {lvlm.name} have {has}"
        for knots in (self.x, self.iou_x):
            if problem is None and knots and (knots[0] > 1 or knots[-1] < 0):  # constant on [0, 1]
                problem = f"it is made for {knots[0]:g} to {knots[-1]:g}, but confidences lie in [0, 1]"
        if problem:
            raise CalibrationError(f"this calibration does not fit: {problem}. {ADVICE}")

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read and check a calibration file (JSON).

        Raises:
            CalibrationError: the file is unreadable, damaged, of another schema version, or has a wrong field; the
                message names it.
            TypeError: ``path`` is not a path.
            ValueError: ``path`` is empty.
        """
        path = arguments.path("path", path)
        try:
            return cls.from_dict(read_object(path, SCHEMA_VERSION, since=FIRST_VERSION))
        except (CalibrationError, ValueError) as error:
            raise CalibrationError(f"calibration {path}: {error}. {ADVICE}") from error

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Calibration:
        """Return the calibration that :meth:`to_dict` converted.

        Raises:
            CalibrationError, ValueError: a field is missing or wrong; the message names it.
        """
        identity = ModelIdentity.from_dict(data)
        texts = {key: data.get(key, "" if key == "made_by" else None) for key in ("selector", "feature", "made_by")}
        for key, value in texts.items():
            if not isinstance(value, str):
                raise CalibrationError(f'field "{key}" must be a string, got {shorten(value)}')
        counts = {key: data.get(key, 0) for key in COUNTS}
        for key, count in counts.items():
            if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= arguments.MAX_COUNT:
                raise CalibrationError(f'field "{key}" must be a whole number, 0 or more, got {shorten(count)}')
        x, y = _numbers(data, "x"), _numbers(data, "y")
        iou_x, iou_y = (_numbers(data, key) if key in data else () for key in ("iou_x", "iou_y"))
        points = _working_points(data.get("working_points", []))
        second_look = data.get("second_look", False)
        if not isinstance(second_look, bool):
            raise CalibrationError(f'field "second_look" must be true or false, got {shorten(second_look)}')
        selector, feature, made_by = (str(texts[key]) for key in ("selector", "feature", "made_by"))
        return cls(
            identity,
            selector,
            feature,
            x,
            y,
            counts["num_samples"],
            made_by,
            iou_x,
            iou_y,
            points,
            second_look,
            images=_images(data["images"]) if "images" in data else None,
            score_model=_part(data, "score_model", ScoreModel.from_dict),
            questions=counts["questions"],
            absent=counts["absent"],
            presence=_part(data, "presence", PresenceProbe.from_dict),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the calibration as JSON values."""
        data: dict[str, Any] = {"schema_version": SCHEMA_VERSION, **self.identity.to_dict()}
        data |= {"selector": self.selector, "feature": self.feature, "num_samples": self.num_samples}
        data |= {"questions": self.questions, "absent": self.absent}
        if self.second_look:
            data |= {"second_look": True}
        data |= {"made_by": self.made_by, "x": list(self.x), "y": list(self.y)}
        if self.iou_x:
            data |= {"iou_x": list(self.iou_x), "iou_y": list(self.iou_y)}
        data |= {"working_points": [asdict(p) for p in self.working_points]}
        if self.score_model:
            data |= {"score_model": self.score_model.to_dict()}
        if self.presence:
            data |= {"presence": self.presence.to_dict()}
        if self.images:
            data |= {"images": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.images).items()}}
        return data

    def save(self, path: str | Path) -> None:
        """Write the calibration as indented JSON, atomically.

        Raises:
            OSError: the file cannot be written.
        """
        write_text(path, json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")


def _check_curve(x_name: str, x: tuple[float, ...], y_name: str, y: tuple[float, ...]) -> None:
    """Check that the knots are a non-decreasing curve into [0, 1].

    Raises:
        CalibrationError: they are not.
    """
    if not x or len(x) != len(y):
        raise CalibrationError(
            f'fields "{x_name}" and "{y_name}" must be lists of one equal length above 0, got {len(x)} and {len(y)}'
        )
    if not np.isfinite(x).all() or not np.isfinite(y).all():
        raise CalibrationError(f'fields "{x_name}" and "{y_name}" must hold finite numbers')
    if any(b <= a for a, b in pairwise(x)):
        raise CalibrationError(f'field "{x_name}" must be strictly increasing')
    if any(b < a for a, b in pairwise(y)):
        raise CalibrationError(f'field "{y_name}" must never decrease')
    if y[0] < 0 or y[-1] > 1:
        raise CalibrationError(f'field "{y_name}" must lie in [0, 1]')


def _check_points(points: tuple[WorkingPoint, ...]) -> None:
    """Check that every point reached the wanted precision, and that thresholds rise and kept shares fall with it.

    Raises:
        CalibrationError: the points are not such thresholds.
    """
    for i, point in enumerate(points):
        values = (point.wanted, point.min_score, point.precision, point.kept)
        if not all(0 <= v <= 1 for v in values):
            raise CalibrationError(f'field "working_points[{i}]" must hold numbers in [0, 1], got {shorten(values)}')
        if not 0 <= point.answers <= arguments.MAX_COUNT:
            raise CalibrationError(
                f'field "working_points[{i}].answers" must be 0 or more, got {shorten(point.answers)}'
            )
        if point.precision < point.wanted - ROUNDING:
            raise CalibrationError(
                f'field "working_points[{i}]": the precision {point.precision:g} is below the wanted {point.wanted:g}'
            )
    ordered = sorted(points, key=lambda p: p.wanted)
    for below, above in pairwise(ordered):
        if above.wanted == below.wanted:
            raise CalibrationError(f'field "working_points" states the wanted precision {above.wanted:g} twice')
        if above.min_score < below.min_score or above.kept > below.kept:
            raise CalibrationError(
                f'field "working_points": the precision {above.wanted:g} has the threshold {above.min_score:g} and '
                f"keeps {above.kept:g}, the lower {below.wanted:g} has {below.min_score:g} and keeps {below.kept:g}; "
                "a higher precision needs a higher threshold, which keeps less"
            )


def _images(value: Any) -> CalibrationImages:
    fields = value if isinstance(value, Mapping) else {}
    data, ids, pictures = fields.get("data"), fields.get("ids"), fields.get("pictures")
    if not isinstance(data, str) or not isinstance(ids, list) or not isinstance(pictures, list):
        raise CalibrationError(
            f'field "images" must hold a text "data" and lists "ids" and "pictures": {shorten(value)}'
        )
    if not all(isinstance(i, int) and not isinstance(i, bool) and 0 <= i <= MAX_ID for i in ids):
        raise CalibrationError('field "images": "ids" must hold whole numbers, 0 or more')
    if not all(isinstance(p, str) and _DIGEST.fullmatch(p) for p in pictures):
        raise CalibrationError('field "images": "pictures" must hold texts of 16 hexadecimal digits')
    return CalibrationImages(data, tuple(ids), tuple(pictures))


def _part(data: Mapping[str, Any], name: str, read: Callable[[Mapping[str, Any]], T]) -> T | None:
    """Return the field ``name``, an object that ``read`` reads; None if there is none."""
    if name not in data:
        return None
    value = data[name]
    if not isinstance(value, Mapping):
        raise CalibrationError(f'field "{name}" must be an object, got {shorten(value)}')
    try:
        return read(value)
    except ValueError as error:
        raise CalibrationError(f'field "{name}": {error}') from error


def _working_points(value: Any) -> tuple[WorkingPoint, ...]:
    if not isinstance(value, list) or len(value) > MAX_KNOTS:
        raise CalibrationError(f'field "working_points" must be a list, got {shorten(value)}')
    points = []
    for i, entry in enumerate(value):
        if not isinstance(entry, Mapping):
            raise CalibrationError(f'field "working_points[{i}]" must be an object, got {shorten(entry)}')
        values = [number(entry, name, f"working_points[{i}]: ") for name in SHARES]
        if not all(0 <= v <= 1 for v in values):
            raise CalibrationError(f'field "working_points[{i}]" must hold numbers in [0, 1], got {shorten(entry)}')
        answers = entry.get("answers", 0)
        if isinstance(answers, bool) or not isinstance(answers, int):
            raise CalibrationError(
                f'field "working_points[{i}].answers" must be a whole number, got {shorten(answers)}'
            )
        wanted, min_score, precision, kept = values
        points.append(WorkingPoint(wanted, min_score, precision, kept, answers))
    return tuple(points)


def _numbers(data: Mapping[str, Any], key: str) -> tuple[float, ...]:
    values = data.get(key)
    if not isinstance(values, list) or len(values) > MAX_KNOTS:
        raise CalibrationError(f'field "{key}" must be a list of at most {MAX_KNOTS} numbers')
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > 1e9:
            raise CalibrationError(f'field "{key}" must hold numbers of sensible size, got {shorten(value)}')
    return tuple(float(value) for value in values)
