"""Boosted regression trees as plain arrays, which need only numpy and can be stored without code."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_TREES, MAX_NODES = 10_000, 1_000
MAX_SIZE = 1e12  # of thresholds, leaves and base


@dataclass(frozen=True)
class Trees:
    """T regression trees of at most M nodes each. The prediction is ``base`` plus the values of the leaves reached in
    all trees.

    A node passes a row to child 0 if its feature is at most the threshold, else to child 1. A leaf is its own child;
    every other child comes after its node, so that each traversal ends. Smaller trees are padded with leaves.

    Attributes:
        feature: (T, M) index of each node's feature, below ``width``.
        threshold: (T, M) threshold of each node.
        child: (T, M, 2) indices of each node's children.
        value: (T, M) values of the leaves.
        base: constant part of the prediction.
        width: number of features.

    Raises:
        ValueError: the arrays are not valid trees; the message names the first invalid one.
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
            if np.abs(getattr(self, name)).max() > MAX_SIZE:
                raise ValueError(f"{name} holds values above {MAX_SIZE:g}, which no fit gives")
        if self.feature.min() < 0 or self.feature.max() >= self.width:
            raise ValueError(f"feature holds numbers outside 0 to {self.width - 1}")
        own = np.arange(shape[1])[None, :, None]
        later = (self.child > own) & (self.child < shape[1])
        leaf = (self.child == own).all(axis=2)
        if not (later.all(axis=2) | leaf).all():
            raise ValueError("child points back, or out of its tree")

    @property
    def leaves(self) -> np.ndarray:
        """Whether each node is a leaf, (T, M) bool; True for padding."""
        return np.asarray((self.child == np.arange(self.child.shape[1])[None, :, None]).all(axis=2))

    @property
    def range(self) -> tuple[float, float]:
        """Bounds (lowest, highest) of the predictions for any features."""
        low, high = (np.where(self.leaves, self.value, fill) for fill in (np.inf, -np.inf))
        return float(low.min(axis=1).sum() + self.base), float(high.max(axis=1).sum() + self.base)

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Predict (C,) float64 from features ``rows`` (C, F), where F is ``width``."""
        trees = np.arange(len(self.feature))
        node = np.zeros((len(rows), len(trees)), np.int64)  # (C, T)
        at = np.arange(len(rows))[:, None]
        while True:
            right = rows[at, self.feature[trees, node]] > self.threshold[trees, node]
            following = self.child[trees, node, right.astype(np.int64)]
            if (following == node).all():
                return np.asarray(self.value[trees, node].sum(axis=1) + self.base)
            node = following
