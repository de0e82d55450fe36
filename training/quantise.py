"""Attention maps in few bits: one unit a map, and codes that follow the square root of the weights.

A map is a share of one spread over hundreds of cells: a few large weights and many small ones. Equal steps of the
square root keep both: its squared error is the Hellinger distance of the two distributions. The unit keeps the map's
sum as it was: rounding would otherwise change it, most of all where few cells hold most of the weight, and a regressor
takes a sum that is off for evidence. Making small codes and their repeats short is left to the store's compression.
"""

from __future__ import annotations

import numpy as np
import torch

LEVELS = 72


def encode(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (..., h, w) at or above 0 -> codes (..., h, w) uint8 in 0 to ``LEVELS``, and each map's unit (...)
    float32, the weight behind code 1, such that the sum of the map comes back as it was."""
    largest = np.maximum(maps.max(axis=(-2, -1)), np.finfo(np.float32).tiny)
    codes = np.rint(np.sqrt(maps / largest[..., None, None]) * LEVELS).astype(np.uint8)
    squares = np.square(codes, dtype=np.float32).sum(axis=(-2, -1))
    return codes, (maps.sum(axis=(-2, -1)) / np.maximum(squares, 1)).astype(np.float32)


def decode(codes: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """The weights (..., h, w) float32 behind :func:`encode`'s codes and units."""
    return np.square(codes, dtype=np.float32) * unit[..., None, None]


def decode_on_device(codes: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
    """:func:`decode` for tensors, on the device they are on: a quarter of the bytes has to travel there."""
    return codes.float().square_() * unit[..., None, None]
