"""Calibration: from a selector's confidence to the estimated probability that the box has IoU >= 0.5.

A calibration is a non-decreasing, piecewise linear curve, fitted offline (isotonic regression) on images that the
selector was not made from, and applied here. It is made for one LVLM, one selector and one kind of confidence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from acs_core.errors import CalibrationError
from acs_core.identity import ModelIdentity, ModelLike
from acs_core.jsonfile import read_object, shorten

SCHEMA_VERSION = 1
MAX_KNOTS = 10_000
ADVICE = "Make one with `acs-train build`, or pass another with calibration=..."


@dataclass(frozen=True)
class Calibration:
    """A curve through the knots ``(x[i], y[i])``, flat outside them.

    ``x`` is the confidence, strictly increasing; ``y`` the probability in [0, 1], never decreasing. ``feature`` names
    the confidence (``Selector.feature``), ``num_samples`` is how many candidates the curve was fitted on.

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

    def __post_init__(self) -> None:
        if not self.x or len(self.x) != len(self.y):
            raise CalibrationError(
                f'fields "x" and "y" must be lists of one equal length above 0, got {len(self.x)} and {len(self.y)}'
            )
        if not np.isfinite(self.x).all() or not np.isfinite(self.y).all():
            raise CalibrationError('fields "x" and "y" must hold finite numbers')
        if any(b <= a for a, b in pairwise(self.x)):
            raise CalibrationError('field "x" must be strictly increasing')
        if any(b < a for a, b in pairwise(self.y)):
            raise CalibrationError('field "y" must never decrease')
        if self.y[0] < 0 or self.y[-1] > 1:
            raise CalibrationError('field "y" must lie in [0, 1]')

    def apply(self, confidences: np.ndarray) -> np.ndarray:
        """Confidences (C,) -> probabilities (C,) float64 in [0, 1]."""
        return np.interp(np.asarray(confidences, dtype=np.float64), self.x, self.y)

    def check(self, lvlm: ModelLike, selector: str, feature: str) -> None:
        """Makes sure that the curve was made for this LVLM, selector and kind of confidence.

        Raises:
            CalibrationError: it was not; the message says what differs.
        """
        problem = self.identity.mismatch(lvlm)
        if problem is None and self.selector != selector:
            problem = f"it was made for the selector {self.selector}, not {selector}"
        if problem is None and self.feature != feature:
            problem = f"it maps {self.feature!r}, but {selector} gives {feature!r}"
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
        return cls(identity, str(texts["selector"]), str(texts["feature"]), x, y, count, str(texts["made_by"]))

    def to_dict(self) -> dict[str, Any]:
        """The curve as JSON values."""
        data: dict[str, Any] = {"schema_version": SCHEMA_VERSION, **self.identity.to_dict()}
        data |= {"selector": self.selector, "feature": self.feature, "num_samples": self.num_samples}
        return data | {"made_by": self.made_by, "x": list(self.x), "y": list(self.y)}

    def save(self, path: str | Path) -> None:
        """Writes the curve as indented JSON.

        Raises:
            OSError: the path cannot be written.
        """
        Path(path).write_text(json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _numbers(data: Mapping[str, Any], key: str) -> tuple[float, ...]:
    values = data.get(key)
    if not isinstance(values, list) or len(values) > MAX_KNOTS:
        raise CalibrationError(f'field "{key}" must be a list of at most {MAX_KNOTS} numbers')
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > 1e9:
            raise CalibrationError(f'field "{key}" must hold numbers of sensible size, got {shorten(value)}')
    return tuple(float(value) for value in values)
