"""Axis-aligned boxes in pixels, their IoU, and clusters of overlapping boxes (paper section 5.5)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from acs_core.arguments import coordinate, set_fields

CLUSTER_IOU = 0.5


@dataclass(frozen=True)
class Box:
    """A box in pixels of the original image, x right and y down, with the corners ``(x1, y1)`` and ``(x2, y2)``.

    Coordinates are continuous: a box that covers the whole image is ``(0, 0, width, height)``. They may be infinite or
    NaN, since a model may state such numbers; :meth:`clip` returns None for these.

    A box is also a sequence of its four coordinates: ``x1, y1, x2, y2 = box`` and ``np.array(box)`` work.

    Raises:
        TypeError: a coordinate is not a number.
    """

    x1: float
    y1: float
    x2: float
    y2: float

    def __post_init__(self) -> None:
        for name in ("x1", "y1", "x2", "y2"):
            value = getattr(self, name)
            if type(value) is not float:  # skips the slower check, since boxes are created by the thousand
                set_fields(self, {name: coordinate(name, value)})

    def __iter__(self) -> Iterator[float]:
        return iter(self.as_tuple())

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> float:
        return self.as_tuple()[index]

    def __repr__(self) -> str:
        return f"Box({', '.join(f'{v:.6g}' for v in self)})"

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
        """Return ``(x1, y1, x2, y2)``."""
        return self.x1, self.y1, self.x2, self.y2

    def clip(self, width: int, height: int) -> Box | None:
        """Return the part of the box inside a ``width x height`` image; None if it has no area.

        Boxes with non-finite, swapped or equal corners have no area.
        """
        if not all(math.isfinite(v) for v in self.as_tuple()):
            return None
        x1, x2 = max(0.0, self.x1), min(float(width), self.x2)
        y1, y2 = max(0.0, self.y1), min(float(height), self.y2)
        part = Box(x1, y1, x2, y2)
        return part if x2 > x1 and y2 > y1 and part.area > 0 else None  # the area of tiny sides can be 0

    def iou(self, other: Box) -> float:
        """Return the intersection over union with ``other``, in [0, 1]."""
        inter = max(0.0, min(self.x2, other.x2) - max(self.x1, other.x1)) * max(
            0.0, min(self.y2, other.y2) - max(self.y1, other.y1)
        )
        union = self.area + other.area - inter
        return inter / union if union > 0 else 0.0


def iou_matrix(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the pairwise IoU of ``boxes`` (M, 4) and ``others`` (N, 4), both x1 y1 x2 y2: (M, N) float64 in [0, 1]."""
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
    """Return the IoU with the true box that fits best; 0 if there is none."""
    return max((box.iou(t) for t in truth), default=0.0)


def overlaps(boxes: Sequence[Box], threshold: float = CLUSTER_IOU) -> np.ndarray:
    """Return which boxes agree: (C, C) bool, symmetric, True if IoU >= ``threshold`` and on the diagonal."""
    corners = np.array([box.as_tuple() for box in boxes], dtype=np.float64).reshape(-1, 4)
    agree = iou_matrix(corners, corners) >= threshold
    np.fill_diagonal(agree, True)
    return agree


def union_find(agree: np.ndarray) -> list[int]:
    """Return the connected components of a symmetric (C, C) bool matrix.

    Chains are joined: if a agrees with b and b with c, all three are in one cluster even if a and c do not agree.

    Returns:
        The cluster number of each index: 0, 1, ... in order of first appearance.
    """
    parent = list(range(len(agree)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]  # path halving, so that long chains stay cheap
            i = parent[i]
        return i

    for i, j in zip(*np.nonzero(np.triu(agree, 1)), strict=True):
        a, b = root(int(i)), root(int(j))
        parent[max(a, b)] = min(a, b)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(i), len(numbers)) for i in range(len(parent))]


def votes(agree: np.ndarray, responses: Sequence[int]) -> list[int]:
    """Return, for each candidate, the number of *other* responses with a box that agrees with it.

    A response counts once, however many of its boxes agree.

    Args:
        agree: (C, C) bool.
        responses: index of the response of each candidate.
    """
    of = np.asarray(responses)
    return [len(set(of[row].tolist()) - {own}) for row, own in zip(agree, of.tolist(), strict=True)]
