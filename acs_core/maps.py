"""Attention maps on another grid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional


def resize_maps(maps: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Maps (..., Hv, Wv) at ``size`` (h, w), each with the mass (sum) it had: (..., h, w).

    Area averaging where both sides shrink, bilinear otherwise. A map of that size comes back as it is. Keeping the
    mass keeps a value's meaning, the share of attention a place gets, whatever the picture's own grid was.
    """
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    flat = maps.reshape(1, -1, *maps.shape[-2:])
    if size[0] <= maps.shape[-2] and size[1] <= maps.shape[-1]:
        sized = functional.interpolate(flat, size=tuple(size), mode="area")
    else:
        sized = functional.interpolate(flat, size=tuple(size), mode="bilinear", align_corners=False)
    before, after = flat.sum((-2, -1), keepdim=True), sized.sum((-2, -1), keepdim=True)
    sized = sized * (before / after.clamp_min(torch.finfo(sized.dtype).tiny))
    return sized.reshape(*maps.shape[:-2], *size)
