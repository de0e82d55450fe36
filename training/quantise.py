"""Attention maps in few bits: one scale a map, and codes that follow the square root of the weights.

A map is a share of one spread over hundreds of cells: a few large weights and many small ones. Equal steps of the
square root keep both: its squared error is the Hellinger distance of the two distributions. Making small codes and
their repeats short is left to the store's compression.
"""

from __future__ import annotations

import numpy as np
import torch

LEVELS = 15


def encode(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (..., h, w) at or above 0 -> codes (..., h, w) uint8 in 0 to ``LEVELS``, and each map's largest weight
    (...) float32, which comes back as it was."""
    scale = maps.max(axis=(-2, -1)).astype(np.float32)
    share = maps / np.maximum(scale, np.finfo(np.float32).tiny)[..., None, None]
    return np.rint(np.sqrt(share) * LEVELS).astype(np.uint8), scale


def decode(codes: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The weights (..., h, w) float32 behind :func:`encode`'s codes and scales."""
    table = (np.arange(LEVELS + 1, dtype=np.float32) / LEVELS) ** 2
    return table[codes] * scale[..., None, None]


def decode_on_device(codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """:func:`decode` for tensors, on the device they are on: a quarter of the bytes has to travel there."""
    return (codes.float() / LEVELS).square_() * scale[..., None, None]
