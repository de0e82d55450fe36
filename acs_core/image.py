"""Pictures as the engine wants them: (H, W, 3) uint8 RGB, of a size that a model can take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from acs_core.errors import ImageError

MIN_SIDE = 16  # pixels: less than one patch of the LVLMs
MAX_PIXELS = 64_000_000
MAX_ASPECT = 100  # longer side over shorter; Qwen2.5-VL's own limit is 200


def check_image(image: object) -> np.ndarray:
    """``image`` as a C-contiguous (H, W, 3) uint8 array, RGB; no copy where it already is one.

    Raises:
        ImageError: not an array, of another shape or type, too small, too large, or too long and thin.
    """
    if not isinstance(image, np.ndarray):
        raise ImageError(f"the image must be a numpy array (H, W, 3) uint8 in RGB order, not a {type(image).__name__}")
    if image.ndim != 3 or image.shape[2] != 3:
        hint = " (a grey picture: stack it three times)" if image.ndim == 2 else ""
        hint = " (four channels: drop the alpha channel)" if image.ndim == 3 and image.shape[2] == 4 else hint
        raise ImageError(f"the image must have the shape (H, W, 3), got {image.shape}{hint}")
    if image.dtype != np.uint8:
        raise ImageError(f"the image must hold uint8 values from 0 to 255, got {image.dtype}")
    height, width = image.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise ImageError(f"the image is {width} x {height} pixels; each side needs at least {MIN_SIDE}")
    if height * width > MAX_PIXELS:
        raise ImageError(
            f"the image is {width} x {height} pixels; at most {MAX_PIXELS // 10**6} million are taken: scale it down"
        )
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ImageError(f"the image is {width} x {height} pixels: longer than {MAX_ASPECT} times its other side")
    return np.ascontiguousarray(image)


def read_image(path: str | Path) -> np.ndarray:
    """Reads a picture file of any common format: (H, W, 3) uint8 RGB, turned upright as its EXIF data say.

    Raises:
        ImageError: missing, no picture, damaged or cut short, or of a size that :func:`check_image` refuses.
    """
    path = Path(path)
    try:
        with Image.open(path) as file:
            if file.width * file.height > MAX_PIXELS:  # before decoding: a small file can claim a huge picture
                raise ImageError(
                    f"image {path} is {file.width} x {file.height} pixels; at most {MAX_PIXELS // 10**6} million "
                    "are taken: scale it down"
                )
            array = np.array(ImageOps.exif_transpose(file).convert("RGB"))
    except FileNotFoundError as error:
        raise ImageError(f"image {path} does not exist") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"image {path} is not a picture of a known format (png, jpeg, bmp, webp ...)") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"image {path} cannot be read: {error}") from error
    try:
        return check_image(array)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
