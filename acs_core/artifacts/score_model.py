"""Score model: boosted trees that estimate from the evidence of a call whether the box of a candidate is right.

A calibration may hold one (:mod:`acs_core.artifacts.calibration`). The features are those of
:mod:`acs_core.selection.evidence`. Neither is part of the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from acs_core.artifacts.trees import MAX_NODES, MAX_TREES, Trees
from acs_core.plain_text import shorten

DIGITS = 7  # significant digits of stored numbers
ARRAYS = ("feature", "threshold", "left", "right", "value")
WHOLE = ("feature", "left", "right")


@dataclass(frozen=True)
class ScoreModel:
    """Trees over named features.

    Attributes:
        features: names of the F features, in the order of the trees' columns, each once.
        trees: the trees, of width F.

    Raises:
        ValueError: a name is empty or stands twice, or their number is not the trees' width.
    """

    features: tuple[str, ...]
    trees: Trees

    def __post_init__(self) -> None:
        if not all(self.features) or len(set(self.features)) != len(self.features):
            raise ValueError(f'field "features" must list names, each once, got {shorten(self.features)}')
        if self.trees.width != len(self.features):
            raise ValueError(f"the trees read {self.trees.width} features, {len(self.features)} are named")

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Predict (C,) float64 in [0, 1] from features (C, F)."""
        return np.clip(self.trees.predict(np.asarray(rows, np.float64)), 0.0, 1.0)

    def rounded(self) -> ScoreModel:
        """Return the model as it is after :meth:`to_dict` and :meth:`from_dict`."""
        return ScoreModel.from_dict(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return the model as JSON values."""
        trees = self.trees
        return {
            "features": list(self.features),
            "base": _short(trees.base),
            "feature": trees.feature.tolist(),
            "threshold": [[_short(v) for v in row] for row in trees.threshold.tolist()],
            "left": trees.child[..., 0].tolist(),
            "right": trees.child[..., 1].tolist(),
            "value": [[_short(v) for v in row] for row in trees.value.tolist()],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ScoreModel:
        """Return the model that :meth:`to_dict` converted.

        Raises:
            ValueError: a field is missing or wrong; the message names it.
        """
        names = data.get("features")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f'field "features" must be a list of names, got {shorten(names)}')
        arrays = {name: _array(data, name) for name in ARRAYS}
        if len({a.shape for a in arrays.values()}) > 1:
            raise ValueError(f"the fields {', '.join(ARRAYS)} must have one shape")
        base = data.get("base")
        if isinstance(base, bool) or not isinstance(base, (int, float)):
            raise ValueError(f'field "base" must be a number, got {shorten(base)}')
        child = np.stack([arrays["left"], arrays["right"]], axis=-1)
        trees = Trees(arrays["feature"], arrays["threshold"], child, arrays["value"], float(base), len(names))
        return cls(tuple(names), trees)


def _array(data: Mapping[str, Any], name: str) -> np.ndarray:
    """Return the field ``name``, a list of equally long lists of numbers, as (T, M)."""
    rows = data.get(name)
    if not isinstance(rows, list) or not rows or len(rows) > MAX_TREES or not all(isinstance(r, list) for r in rows):
        raise ValueError(f'field "{name}" must be a list of lists, one for each tree, got {shorten(rows)}')
    if not 1 <= len(rows[0]) <= MAX_NODES or any(len(row) != len(rows[0]) for row in rows):
        raise ValueError(f'field "{name}" must hold lists of one length, 1 to {MAX_NODES}')
    for value in (value for row in rows for value in row):
        is_number = isinstance(value, int) or (isinstance(value, float) and name not in WHOLE)
        if isinstance(value, bool) or not is_number or not abs(value) < 2**53:
            raise ValueError(f'field "{name}" must hold numbers of sensible size, got {shorten(value)}')
    return np.array(rows, np.int64 if name in WHOLE else np.float64)


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
