"""Presence probe: logistic regression from the model's last hidden state at the end of the prompt to whether the image
shows what is asked for.

A calibration may hold one (:mod:`acs_core.artifacts.calibration`); its estimate is then a feature of the score model.
It is not part of the paper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from acs_core.plain_text import shorten

MAX_WIDTH = 65_536  # channels of a hidden state
MOST = 12.0  # bound of the log-odds, as of other evidence
DIGITS = 6  # significant digits of stored numbers


@dataclass(frozen=True)
class PresenceProbe:
    """Weights (D,) and bias of the log-odds that the object is there.

    Raises:
        ValueError: there is no weight, there are too many, or a number is not finite.
    """

    weights: tuple[float, ...]
    bias: float

    def __post_init__(self) -> None:
        if not 1 <= len(self.weights) <= MAX_WIDTH:
            raise ValueError(f'field "weights" must hold 1 to {MAX_WIDTH} numbers, got {len(self.weights)}')
        if not all(map(math.isfinite, (*self.weights, self.bias))):
            raise ValueError('fields "weights" and "bias" must hold finite numbers')

    def log_odds(self, hidden: np.ndarray | None) -> float:
        """Return the log-odds in [-12, 12] that the object is there, given the hidden state (D,).

        Raises:
            ValueError: the hidden state is unknown, or of another width.
        """
        if hidden is None:
            raise ValueError("the presence probe needs the model's hidden state at the end of the prompt: not kept")
        if hidden.shape != (len(self.weights),):
            raise ValueError(f"the presence probe reads {len(self.weights)} channels, the model has {hidden.size}")
        return float(np.clip(np.dot(self.weights, hidden.astype(np.float64)) + self.bias, -MOST, MOST))

    def rounded(self) -> PresenceProbe:
        """Return the probe as it is after :meth:`to_dict` and :meth:`from_dict`."""
        return PresenceProbe.from_dict(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return the probe as JSON values."""
        return {"bias": _short(self.bias), "weights": [_short(w) for w in self.weights]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PresenceProbe:
        """Return the probe that :meth:`to_dict` converted.

        Raises:
            ValueError: a field is missing or wrong; the message names it.
        """
        weights, bias = data.get("weights"), data.get("bias")
        if not isinstance(weights, list) or len(weights) > MAX_WIDTH:
            raise ValueError(f'field "weights" must be a list of at most {MAX_WIDTH} numbers')
        for value in (*weights, bias):
            if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
                raise ValueError(
                    f'fields "weights" and "bias" must hold numbers of sensible size, got {shorten(value)}'
                )
        return cls(tuple(float(w) for w in weights), float(bias))  # type: ignore[arg-type]


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
