"""Boosted regression trees as plain arrays: numpy alone runs them, and a file can hold them without any code."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_TREES, MAX_NODES = 10_000, 1_000


@dataclass(frozen=True)
class Trees:
    """T regression trees of at most M nodes; the prediction is ``base`` and the value of the leaf reached in each.

    A node sends a row to ``child`` (T, M, 2) 0 where its ``feature`` (T, M) is at most the ``threshold`` (T, M), else
    to 1. A leaf is its own child; every other child comes after its node, so that each walk ends. ``value`` (T, M) is
    that of leaves. Feature numbers are below ``width``.

    Raises:
        ValueError: the arrays are no such trees; the message names the first that is wrong.
    """

    feature: np.ndarray
    threshold: np.ndarray
    child: np.ndarray
    value: np.ndarray
    base: float
    width: int

    def __post_init__(self) -> None:
        shape = self.feature.shape
        if len(shape) != 2 or not (1 <= shape[0] <= MAX_TREES and 1 <= shape[1] <= MAX_NODES):
            raise ValueError(f"feature has shape {shape}, not that of 1 to {MAX_TREES} trees of 1 to {MAX_NODES} nodes")
        for name, wanted in (("threshold", shape), ("child", (*shape, 2)), ("value", shape)):
            if getattr(self, name).shape != wanted:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, not {wanted} as feature asks for")
        for name in ("threshold", "value", "base"):
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"{name} holds values that are not finite")
        if self.feature.min() < 0 or self.feature.max() >= self.width:
            raise ValueError(f"feature holds numbers outside 0 to {self.width - 1}")
        own = np.arange(shape[1])[None, :, None]
        later = (self.child > own) & (self.child < shape[1])
        leaf = (self.child == own).all(axis=2)
        if not (later.all(axis=2) | leaf).all():
            raise ValueError("child points back, or out of its tree")

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Features (C, F) -> predictions (C,) float64."""
        trees = np.arange(len(self.feature))
        node = np.zeros((len(rows), len(trees)), np.int64)  # (C, T)
        at = np.arange(len(rows))[:, None]
        while True:
            right = rows[at, self.feature[trees, node]] > self.threshold[trees, node]
            following = self.child[trees, node, right.astype(np.int64)]
            if (following == node).all():
                return np.asarray(self.value[trees, node].sum(axis=1) + self.base)
            node = following
