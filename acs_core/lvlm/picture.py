"""Size of the picture that a model sees: the budget of image tokens, and the frame in which coordinates are stated.

A processor resizes each picture to whole patches or tiles. Its own limits are generous: a 1920 x 1080 frame is 2,691
image tokens for Qwen2.5-VL and a 4K frame 10,549, about 20 times the work of a 640 x 480 one. The functions here lower
these limits to a budget (``max_image_tokens``); they never raise them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers.image_utils import SizeDict

from acs_core.arguments import one_of, set_fields, whole
from acs_core.errors import ModelError, OptionError
from acs_core.types import COORDINATE_FRAMES, FAMILY_FRAME, LEAST_IMAGE_TOKENS, MAX_IMAGE_TOKENS


@dataclass(frozen=True)
class PictureOptions:
    """How a model gets pictures and states coordinates in them.

    Attributes:
        max_image_tokens: budget of image tokens of a picture, 16 to 2^20; None for the processor's own limit.
        coordinate_frame: frame of the coordinates, one of :data:`acs_core.types.COORDINATE_FRAMES`.

    Raises:
        TypeError: a value is of the wrong type.
        OptionError: the budget is out of range, or there is no such frame; both a ModelError and a ValueError.
    """

    max_image_tokens: int | None = None
    coordinate_frame: str = FAMILY_FRAME

    def __post_init__(self) -> None:
        tokens, frame = self.max_image_tokens, self.coordinate_frame
        try:
            checked: dict[str, object] = {"coordinate_frame": one_of("coordinate_frame", frame, COORDINATE_FRAMES)}
            if tokens is not None:
                checked["max_image_tokens"] = whole("max_image_tokens", tokens, LEAST_IMAGE_TOKENS, MAX_IMAGE_TOKENS)
        except ValueError as error:
            raise OptionError(str(error)) from error
        set_fields(self, checked)


def frame_sizes(input_size: tuple[int, int], image_size: tuple[int, int]) -> dict[str, tuple[float, float]]:
    """Return (width, height) of every coordinate frame by its name in :data:`acs_core.types.COORDINATE_FRAMES`.

    Args:
        input_size: (width, height) of the picture as the processor resized it, in pixels.
        image_size: (width, height) of the original image in pixels.
    """
    (w, h), (width, height) = input_size, image_size
    return {
        "0-1000": (1000.0, 1000.0),
        "resized": (float(w), float(h)),
        "original": (float(width), float(height)),
        "0-1": (1.0, 1.0),
    }


def limit_pixels(image_processor: Any, tokens: int) -> None:
    """Limit an image processor that resizes to whole patches (Qwen2-VL and its successors) to ``tokens`` image tokens.

    A picture whose sides have a ratio above ``tokens`` can take more, since no side gets shorter than one token.
    """
    most = tokens * (image_processor.patch_size * image_processor.merge_size) ** 2
    size = image_processor.size
    if most < size["longest_edge"]:
        # Small pictures are scaled up to the lower limit with sides rounded up: a quarter leaves room for that.
        image_processor.size = SizeDict(shortest_edge=min(size["shortest_edge"], most // 4), longest_edge=most)


def limit_tiles(image_processor: Any, tokens: int, tile_tokens: int) -> None:
    """Limit an image processor that cuts tiles (InternVL) to ``tokens`` image tokens; several tiles come with a
    thumbnail, which is as large as a tile.

    Args:
        image_processor: the processor; changed.
        tokens: the budget.
        tile_tokens: number of image tokens of a tile.

    Raises:
        ModelError: ``tokens`` is less than a tile.
    """
    if tokens < tile_tokens:
        raise ModelError(f"max_image_tokens is {tokens}, and a tile of this model has {tile_tokens}: allow that many")
    tiles = most_tiles(tokens, tile_tokens)
    image_processor.max_patches = min(image_processor.max_patches, tiles)
    image_processor.min_patches = min(image_processor.min_patches, image_processor.max_patches)


def most_tiles(tokens: int, tile_tokens: int) -> int:
    """Return the number of tiles, without the thumbnail, that fit into ``tokens`` image tokens; at least 1."""
    return max(1, tokens // tile_tokens - 1)
