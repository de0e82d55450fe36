"""Clusters of overlapping boxes: candidates that speak of the same object (paper section 5.5)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from acs_core.geometry import Box, iou_matrix

CLUSTER_IOU = 0.5


def overlaps(boxes: Sequence[Box], threshold: float = CLUSTER_IOU) -> np.ndarray:
    """Which boxes agree: (C, C) bool, symmetric, True where IoU >= ``threshold`` and on the diagonal."""
    corners = np.array([box.as_tuple() for box in boxes], dtype=np.float64).reshape(-1, 4)
    agree = iou_matrix(corners, corners) >= threshold
    np.fill_diagonal(agree, True)
    return agree


def union_find(agree: np.ndarray) -> list[int]:
    """Connected components of a symmetric (C, C) bool matrix.

    Returns the cluster number of each index: 0, 1, ... in order of first appearance. Chains join: where a agrees with
    b and b with c, all three share a cluster even if a and c do not agree.
    """
    parent = list(range(len(agree)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]  # halves the path, so that long chains stay cheap
            i = parent[i]
        return i

    for i, j in zip(*np.nonzero(np.triu(agree, 1)), strict=True):
        a, b = root(int(i)), root(int(j))
        parent[max(a, b)] = min(a, b)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(i), len(numbers)) for i in range(len(parent))]


def votes(agree: np.ndarray, responses: Sequence[int]) -> list[int]:
    """How many *other* responses hold a box that agrees with each candidate.

    A response that repeats its own box has one opinion, however often it states it. ``agree`` is (C, C) bool,
    ``responses`` the response of each candidate.
    """
    of = np.asarray(responses)
    return [len(set(of[row].tolist()) - {own}) for row, own in zip(agree, of.tolist(), strict=True)]
