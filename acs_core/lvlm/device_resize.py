"""Resizing of 8-bit pictures by operations on tensors, with the pixels of Pillow's ``Image.resize``.

Pillow scales an image by two passes, one along each axis. A pixel of a pass is a weighted sum of its neighbours along
the axis. The weights are a filter, which is widened by the factor when the image gets smaller; they sum to one and are
rounded to multiples of 2^-22. The sum is rounded and clipped to 8 bits, between the passes too, so their order matters.
All sums are exact in 32-bit integers, so the pixels here equal Pillow's, not only nearly.

The order depends on Pillow: releases before 13 begin with the horizontal pass; later ones begin with the vertical pass
where it removes more than twice as many rows as the other removes columns. :func:`order_of_passes` finds out by trying.

A pass gathers one neighbour of all output pixels at a time. A product with a dense matrix would be shorter, but the
sums need 31 bits: more than float32 holds, and most GPUs have few units for float64. The memory is that of the largest
picture between the passes, in 32 bits, twice. On a CPU Pillow is about four times as fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np
import torch
from PIL import Image

from acs_core.device_array import upload

BITS = 22  # of a weight behind the binary point: 8 bits of a value and 2 for sums above one make 32
KEPT = 64  # weights of the last pairs of sizes, two for every picture; an entry takes a few hundred kB at most
# Sizes (height, width) before and after: each order of the passes is right for some.
_TRIED = (((24, 24), (31, 9)), ((24, 24), (23, 35)), ((24, 24), (15, 20)), ((24, 24), (16, 20)), ((24, 24), (5, 4)))


def _bilinear(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(x), 0)


def _bicubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution with a = -1/2."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


# Half of the width of a filter, in pixels of the smaller picture, and its values.
FILTERS: Mapping[int, tuple[int, Callable[[np.ndarray], np.ndarray]]] = MappingProxyType(
    {int(Image.Resampling.BILINEAR): (1, _bilinear), int(Image.Resampling.BICUBIC): (2, _bicubic)}
)


@dataclass(frozen=True)
class Taps:
    """Neighbours and weights of a pass to ``n`` pixels with up to ``t`` neighbours each.

    Attributes:
        index: (t, n) int32, positions of the neighbours.
        weight: (t, n) int32, their weights in units of 2^-22; 0 where a pixel has fewer.
    """

    index: torch.Tensor
    weight: torch.Tensor


@lru_cache(maxsize=KEPT)
def taps(source: int, target: int, resample: int, device: torch.device) -> Taps:
    """Return the neighbours and weights that scale ``source`` pixels to ``target`` pixels, on ``device``."""
    half, values = FILTERS[resample]
    scale = source / target
    width = max(scale, 1.0)
    support = half * width
    centre = (np.arange(target) + 0.5) * scale  # (n,)
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    stop = np.minimum((centre + support + 0.5).astype(np.int64), source)
    index = first[:, None] + np.arange(int((stop - first).max()))  # (n, t)
    shares = np.where(index < stop[:, None], values((index - centre[:, None] + 0.5) / width), 0)
    # Summed one by one: another order of summing could change the last bit of a weight.
    shares /= np.add.accumulate(shares, axis=1)[:, -1:]
    weight = np.trunc(shares * 2**BITS + np.copysign(0.5, shares)).astype(np.int32)
    index = np.minimum(index, source - 1).astype(np.int32)
    return Taps(*(upload(torch.from_numpy(np.ascontiguousarray(part.T)), device) for part in (index, weight)))


def _along(picture: torch.Tensor, axis: int, target: int, resample: int) -> torch.Tensor:
    """Return ``picture`` (H, W, 3) uint8 with ``target`` pixels along ``axis``."""
    if picture.shape[axis] == target:  # the filter would change the values; Pillow leaves such a pass out
        return picture
    of = taps(picture.shape[axis], target, resample, picture.device)
    shape = [*picture.shape[:axis], target, *picture.shape[axis + 1 :]]
    sums = torch.full(shape, 1 << (BITS - 1), dtype=torch.int32, device=picture.device)  # one half, to round
    for index, weight in zip(of.index, of.weight, strict=True):
        sums += picture.index_select(axis, index) * weight.view([-1] + [1] * (2 - axis))
    return sums.bitwise_right_shift_(BITS).clamp_(0, 255).to(torch.uint8)


def _resize(picture: torch.Tensor, height: int, width: int, resample: int, columns_first: bool) -> torch.Tensor:
    if columns_first:
        return _along(_along(picture, 0, height, resample), 1, width, resample)
    return _along(_along(picture, 1, width, resample), 0, height, resample)


def _always_rows_first(height: int, width: int, to_height: int, to_width: int) -> bool:
    return False


def _fewer_rows_first(height: int, width: int, to_height: int, to_width: int) -> bool:
    return height > to_height and height - to_height > 2 * (width - to_width)


Order = Callable[[int, int, int, int], bool]  # of height, width and those after: whether the vertical pass is first


@lru_cache(maxsize=1)
def order_of_passes() -> Order | None:
    """Return the rule by which the installed Pillow orders its passes; None if its pixels are not those of any known
    rule."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    picture, kept = torch.from_numpy(noise), Image.fromarray(noise)
    for order in (_fewer_rows_first, _always_rows_first):
        if all(
            np.array_equal(
                np.asarray(kept.resize(after[::-1], resample)),
                _resize(picture, *after, resample, order(*before, *after)).numpy(),
            )
            for before, after in _TRIED
            for resample in FILTERS
        ):
            return order
    return None


def can_resize(resample: object) -> bool:
    """Return whether :func:`resize` has the pixels of Pillow with the filter ``resample``."""
    return resample in FILTERS and order_of_passes() is not None


def resize(picture: torch.Tensor, height: int, width: int, resample: int) -> torch.Tensor:
    """Return a picture as ``Image.resize`` scales it.

    Args:
        picture: (H, W, 3) uint8, on any device.
        height, width: the new size in pixels.
        resample: number of Pillow's filter, one of :data:`FILTERS`.

    Returns:
        (height, width, 3) uint8, on the picture's device.

    Raises:
        ValueError: see :func:`can_resize`.
    """
    order = order_of_passes()
    if order is None or not can_resize(resample):
        raise ValueError(f"the pixels of Pillow's filter {resample} are not known")
    return _resize(picture, height, width, int(resample), order(*picture.shape[:2], height, width))
