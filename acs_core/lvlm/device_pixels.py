"""Preparation of pictures on the device: a resized picture goes there as bytes, to be normalised and cut into patches.

The image processors of transformers do all of it on the host, in float64, and what is then copied to the device is
eight times as large for Qwen's towers, which get every picture twice. PIL still resizes, with the processor's own
method: its result depends on the order of its two passes, which changes between its versions and with the sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from acs_core.device_array import upload


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
    """Return whether a processor resizes, and then scales by mean and deviation of a channel."""
    return image_processor.do_resize and image_processor.do_rescale and image_processor.do_normalize


def normalise(picture: torch.Tensor, image_processor: Any) -> torch.Tensor:
    """Return ``picture`` (..., 3, H, W) uint8 with the processor's mean and deviation, float32."""
    values = picture.to(torch.float32) * float(image_processor.rescale_factor)
    mean, std = (
        upload([float(number) for number in numbers], picture.device)[:, None, None]
        for numbers in (image_processor.image_mean, image_processor.image_std)
    )
    return (values - mean) / std


def patches(picture: torch.Tensor, patch: int, merge: int, frames: int) -> torch.Tensor:
    """Cut ``picture`` (3, H, W) into the rows of Qwen's vision towers.

    Patches of one image token follow each other, and a still picture counts as ``frames`` equal frames.

    Returns:
        (H * W / patch^2, 3 * frames * patch^2).
    """
    channels, height, width = picture.shape
    rows, columns = height // (merge * patch), width // (merge * patch)  # in image tokens
    cells = picture.view(channels, rows, merge, patch, columns, merge, patch)
    cells = cells.permute(1, 4, 2, 5, 0, 3, 6)[..., None, :, :].expand(-1, -1, -1, -1, -1, frames, -1, -1)
    return cells.reshape(rows * columns * merge**2, channels * frames * patch**2)
