"""Calibration: from a selector's confidence to the estimated probability that the box has IoU >= 0.5.

A calibration is a non-decreasing, piecewise linear curve, fitted offline (isotonic regression) on images that the
selector was not made from, and applied here. It is made for one LVLM, one selector and one kind of confidence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from acs_core.errors import CalibrationError
from acs_core.identity import ModelIdentity, ModelLike
from acs_core.jsonfile import number, read_object, shorten

SCHEMA_VERSION = 1
MAX_KNOTS = 10_000
ADVICE = "Make one with `acs-train build`, or pass another with calibration=..."


@dataclass(frozen=True)
class WorkingPoint:
    """A threshold to abstain below: of the boxes with at least ``min_score``, the share ``precision`` had IoU >= 0.5 on
    held-out images, at least the ``wanted`` one; they were the share ``kept`` of the answered questions."""

    wanted: float
    min_score: float
    precision: float
    kept: float


@dataclass(frozen=True)
class Calibration:
    """A curve through the knots ``(x[i], y[i])``, flat outside them.

    ``x`` is the confidence, strictly increasing; ``y`` the probability in [0, 1], never decreasing. ``feature`` names
    the confidence (``Selector.feature``), ``num_samples`` is how many candidates the curve was fitted on.
    ``iou_x`` and ``iou_y`` are such a curve too, to the expected IoU; empty in files that do not have it.
    ``working_points`` are thresholds for wanted precisions, as measured. ``second_look``: it is for answers that came
    with a second look (:mod:`acs_core.second_look`), else for those of one look.

    Raises:
        CalibrationError: the knots are not such a curve.
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

    def __post_init__(self) -> None:
        _check_curve("x", self.x, "y", self.y)
        if self.iou_x or self.iou_y:
            _check_curve("iou_x", self.iou_x, "iou_y", self.iou_y)

    def apply(self, confidences: np.ndarray) -> np.ndarray:
        """Confidences (C,) -> probabilities (C,) float64 in [0, 1]."""
        return np.interp(np.asarray(confidences, dtype=np.float64), self.x, self.y)

    def expected_iou(self, confidences: np.ndarray) -> np.ndarray | None:
        """Confidences (C,) -> the IoU that such boxes had on average, (C,) float64 in [0, 1]; None where the file does
        not say."""
        if not self.iou_x:
            return None
        return np.interp(np.asarray(confidences, dtype=np.float64), self.iou_x, self.iou_y)

    def min_score(self, precision: float) -> float | None:
        """The lowest measured threshold whose kept boxes were right at least as often as ``precision``; None where no
        measured one was."""
        return min((p.min_score for p in self.working_points if p.wanted >= precision), default=None)

    def check(self, lvlm: ModelLike, selector: str, feature: str, second_look: bool = False) -> None:
        """Makes sure that the curve was made for this LVLM, selector and kind of confidence, and for as many looks.

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
        if problem:
            raise CalibrationError(f"this calibration does not fit: {problem}. {ADVICE}")

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Reads and checks a calibration file (JSON).

        Raises:
            CalibrationError: unreadable, damaged, of another schema version, or a field is wrong; the message names it.
        """
        try:
            return cls.from_dict(read_object(Path(path), SCHEMA_VERSION))
        except (CalibrationError, ValueError) as error:
            raise CalibrationError(f"calibration {path}: {error}. {ADVICE}") from error

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Calibration:
        """The curve as :meth:`to_dict` gives it.

        Raises:
            CalibrationError, ValueError: a field is missing or wrong; the message names it.
        """
        identity = ModelIdentity.from_dict(data)
        texts = {key: data.get(key, "" if key == "made_by" else None) for key in ("selector", "feature", "made_by")}
        for key, value in texts.items():
            if not isinstance(value, str):
                raise CalibrationError(f'field "{key}" must be a string, got {shorten(value)}')
        count = data.get("num_samples", 0)
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise CalibrationError(f'field "num_samples" must be a whole number, 0 or more, got {shorten(count)}')
        x, y = _numbers(data, "x"), _numbers(data, "y")
        iou_x, iou_y = (_numbers(data, key) if key in data else () for key in ("iou_x", "iou_y"))
        points = _working_points(data.get("working_points", []))
        second_look = data.get("second_look", False)
        if not isinstance(second_look, bool):
            raise CalibrationError(f'field "second_look" must be true or false, got {shorten(second_look)}')
        selector, feature, made_by = (str(texts[key]) for key in ("selector", "feature", "made_by"))
        return cls(identity, selector, feature, x, y, count, made_by, iou_x, iou_y, points, second_look)

    def to_dict(self) -> dict[str, Any]:
        """The curve as JSON values."""
        data: dict[str, Any] = {"schema_version": SCHEMA_VERSION, **self.identity.to_dict()}
        data |= {"selector": self.selector, "feature": self.feature, "num_samples": self.num_samples}
        if self.second_look:
            data |= {"second_look": True}
        data |= {"made_by": self.made_by, "x": list(self.x), "y": list(self.y)}
        if self.iou_x:
            data |= {"iou_x": list(self.iou_x), "iou_y": list(self.iou_y)}
        return data | {"working_points": [asdict(p) for p in self.working_points]}

    def save(self, path: str | Path) -> None:
        """Writes the curve as indented JSON.

        Raises:
            OSError: the path cannot be written.
        """
        Path(path).write_text(json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _check_curve(x_name: str, x: tuple[float, ...], y_name: str, y: tuple[float, ...]) -> None:
    """Raises CalibrationError unless the knots are a non-decreasing curve into [0, 1]."""
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


def _working_points(value: Any) -> tuple[WorkingPoint, ...]:
    if not isinstance(value, list) or len(value) > MAX_KNOTS:
        raise CalibrationError(f'field "working_points" must be a list, got {shorten(value)}')
    points = []
    for i, entry in enumerate(value):
        if not isinstance(entry, Mapping):
            raise CalibrationError(f'field "working_points[{i}]" must be an object, got {shorten(entry)}')
        values = [number(entry, f.name, f"working_points[{i}]: ") for f in fields(WorkingPoint)]
        if not all(0 <= v <= 1 for v in values):
            raise CalibrationError(f'field "working_points[{i}]" must hold numbers in [0, 1], got {shorten(entry)}')
        points.append(WorkingPoint(*values))
    return tuple(points)


def _numbers(data: Mapping[str, Any], key: str) -> tuple[float, ...]:
    values = data.get(key)
    if not isinstance(values, list) or len(values) > MAX_KNOTS:
        raise CalibrationError(f'field "{key}" must be a list of at most {MAX_KNOTS} numbers')
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > 1e9:
            raise CalibrationError(f'field "{key}" must hold numbers of sensible size, got {shorten(value)}')
    return tuple(float(value) for value in values)
