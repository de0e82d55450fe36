"""Preparation of pictures by operations on tensors: they are resized, normalised and cut into tiles or patches.

The image processors of transformers do all of it on the host, with copies in float64, and what is then copied to the
device is eight times as large for Qwen's towers, which get every picture twice. Here the bytes of the picture go to the
device. The pixel inputs are exactly those of the processor: :mod:`acs_core.lvlm.device_resize` has Pillow's pixels, and
each of the 256 values of a channel is normalised by the processor itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from acs_core.device_array import upload
from acs_core.lvlm import device_resize


@dataclass(frozen=True)
class DevicePixels:
    """What an image processor makes of a picture.

    Attributes:
        vision: pixel inputs of the forward, on the device.
        shapes: the same with grids on the host, for :meth:`acs_core.lvlm.base.Family.layout`.
        image_ids: ids of the start token, the image tokens and the end token.
    """

    vision: Mapping[str, torch.Tensor]
    shapes: Mapping[str, torch.Tensor]
    image_ids: list[int]


def is_usual(image_processor: Any) -> bool:
    """Return whether a processor resizes with one of Pillow's filters, and then scales by mean and deviation of a
    channel."""
    steps = image_processor.do_resize and image_processor.do_rescale and image_processor.do_normalize
    return steps and isinstance(image_processor.resample, int)


def resized(
    picture: np.ndarray, sizes: Sequence[tuple[int, int]], resample: int, device: torch.device, there: bool
) -> list[torch.Tensor]:
    """Return a picture in other sizes, as bytes on ``device``.

    Args:
        picture: (H, W, 3) uint8.
        sizes: (height, width) of each result.
        resample: number of Pillow's filter.
        device: device of the results.
        there: whether the device resizes; otherwise, and where it cannot have Pillow's pixels, Pillow does.

    Returns:
        (height, width, 3) uint8 for each size.
    """
    if there and device_resize.can_resize(resample):
        whole = upload(_tensor(picture), device)
        return [device_resize.resize(whole, *size, resample) for size in sizes]
    kept = Image.fromarray(picture)
    return [upload(torch.from_numpy(np.array(kept.resize(size[::-1], resample))), device) for size in sizes]


def _tensor(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture if picture.flags.writeable else picture.copy())  # torch warns of read-only memory


def normalise(picture: torch.Tensor, image_processor: Any) -> torch.Tensor:
    """Return ``picture`` (..., 3, H, W) uint8 with the processor's mean and deviation, float32."""
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8).reshape(16, 16), (3, 16, 16))
    scaled = image_processor.rescale(ramp, image_processor.rescale_factor)
    values = image_processor.normalize(scaled, image_processor.image_mean, image_processor.image_std)
    table = upload(torch.from_numpy(values.astype(np.float32).reshape(-1)), picture.device)  # 256 of each channel
    offset = torch.arange(0, 768, 256, dtype=torch.int32, device=picture.device)[:, None, None]
    return table.index_select(0, (picture + offset).view(-1)).view(picture.shape)


def tiles(picture: torch.Tensor, side: tuple[int, int]) -> torch.Tensor:
    """Cut ``picture`` (H, W, 3) into tiles of ``side`` (height, width), row by row: (tiles, 3, height, width)."""
    height, width = side
    cells = picture.view(picture.shape[0] // height, height, picture.shape[1] // width, width, 3)
    return cells.permute(0, 2, 4, 1, 3).reshape(-1, 3, height, width)


def patches(picture: torch.Tensor, patch: int, merge: int) -> torch.Tensor:
    """Cut ``picture`` (H, W, 3) into the patches of Qwen's vision towers; those of one image token follow each other.

    Returns:
        (H * W / patch^2, 3, patch, patch).
    """
    height, width, _ = picture.shape
    rows, columns = height // (merge * patch), width // (merge * patch)  # in image tokens
    cells = picture.view(rows, merge, patch, columns, merge, patch, 3)
    return cells.permute(0, 3, 1, 4, 6, 2, 5).reshape(-1, 3, patch, patch)


def repeated(patches: torch.Tensor, frames: int) -> torch.Tensor:
    """Return the rows of Qwen's vision towers, (P, 3 * frames * patch^2), for ``patches`` (P, 3, patch, patch) of a
    still picture, which counts as ``frames`` equal frames."""
    return patches[:, :, None].expand(-1, -1, frames, -1, -1).reshape(len(patches), -1)
