"""Spatial entropy of attention maps: how concentrated one head looks (paper section 4.3, equation 3).

``H(A) = - sum_uv p_uv log p_uv`` with ``p = A / sum(A)``, natural logarithm, so H lies in [0, log(number of cells)].
Zero is a single cell, ``log(cells)`` an even spread. A map without any mass says nothing about a place and counts as
an even spread, so that it never looks concentrated.
"""

from __future__ import annotations

import math

import numpy as np
import torch


def entropy(maps: np.ndarray) -> np.ndarray:
    """Entropy of maps (..., Hv, Wv) of non-negative weights, in nats: float64 (...)."""
    flat = np.asarray(maps, dtype=np.float64).reshape(*np.shape(maps)[:-2], -1)  # (..., Hv * Wv)
    mass = flat.sum(axis=-1, keepdims=True)
    p = np.divide(flat, mass, out=np.zeros_like(flat), where=mass > 0)
    nats = -(p * np.log(p, out=np.zeros_like(p), where=p > 0)).sum(axis=-1)
    return np.where(mass[..., 0] > 0, nats, math.log(flat.shape[-1]))


def row_entropy(rows: torch.Tensor) -> torch.Tensor:
    """Entropy of flattened maps (..., cells) of non-negative float32 weights, in nats, on their device: (...)."""
    mass = rows.sum(dim=-1, keepdim=True)
    p = rows / torch.where(mass > 0, mass, 1.0)
    nats = torch.special.entr(p).sum(dim=-1)  # entr(p) = -p log p, and 0 at p = 0
    return torch.where(mass[..., 0] > 0, nats, math.log(rows.shape[-1]))
