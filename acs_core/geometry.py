"""Axis-aligned boxes in pixels: the one box type every room of the project shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Box:
    """A box in pixels of the original image, x right and y down, corners ``(x1, y1)`` and ``(x2, y2)``.

    Coordinates are continuous: a box that covers the whole image is ``(0, 0, width, height)``.
    """

    x1: float
    y1: float
    x2: float
    y2: float

    @property
    def width(self) -> float:
        """Width in pixels; zero for a degenerate box."""
        return max(0.0, self.x2 - self.x1)

    @property
    def height(self) -> float:
        """Height in pixels; zero for a degenerate box."""
        return max(0.0, self.y2 - self.y1)

    @property
    def area(self) -> float:
        """Area in square pixels."""
        return self.width * self.height

    @property
    def center(self) -> tuple[float, float]:
        """Centre ``(x, y)`` in pixels."""
        return (self.x1 + self.x2) / 2, (self.y1 + self.y2) / 2

    def as_tuple(self) -> tuple[float, float, float, float]:
        """``(x1, y1, x2, y2)``."""
        return self.x1, self.y1, self.x2, self.y2

    def clip(self, width: int, height: int) -> Box | None:
        """The part of the box inside a ``width x height`` image, or None where none is left.

        None also stands for boxes with non-finite, swapped or equal corners: those have no area.
        """
        if not all(math.isfinite(v) for v in self.as_tuple()):
            return None
        x1, x2 = max(0.0, self.x1), min(float(width), self.x2)
        y1, y2 = max(0.0, self.y1), min(float(height), self.y2)
        part = Box(x1, y1, x2, y2)
        return part if x2 > x1 and y2 > y1 and part.area > 0 else None  # the area of tiny sides can be 0

    def iou(self, other: Box) -> float:
        """Intersection over union with ``other``, in [0, 1]."""
        inter = max(0.0, min(self.x2, other.x2) - max(self.x1, other.x1)) * max(
            0.0, min(self.y2, other.y2) - max(self.y1, other.y1)
        )
        union = self.area + other.area - inter
        return inter / union if union > 0 else 0.0


def iou_matrix(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Pairwise IoU of ``boxes`` (M, 4) and ``others`` (N, 4), both x1 y1 x2 y2: (M, N) float64 in [0, 1]."""
    a = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    b = np.asarray(others, dtype=np.float64).reshape(-1, 4)
    lo = np.maximum(a[:, None, :2], b[None, :, :2])
    hi = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.clip(hi - lo, 0, None).prod(axis=-1)
    area_a = np.clip(a[:, 2:] - a[:, :2], 0, None).prod(axis=-1)
    area_b = np.clip(b[:, 2:] - b[:, :2], 0, None).prod(axis=-1)
    union = area_a[:, None] + area_b[None] - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def best_iou(box: Box, truth: Sequence[Box]) -> float:
    """IoU with the true box that fits best, 0 where there is none."""
    return max((box.iou(t) for t in truth), default=0.0)
