"""Pictures as the engine wants them: (H, W, 3) uint8 RGB, of a size that a model can take."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from acs_core.errors import ImageError

MIN_SIDE = 16  # pixels: less than one patch of the LVLMs
MAX_PIXELS = 64_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")  # and no decoder beyond
MAX_FILE_BYTES = 512 * 2**20
MAX_SCANS = 50  # of a JPEG: encoders write about ten
MIN_TILE = 2**20  # pixels: a small TIFF may have tiles larger than itself
TILE_WIDTH, TILE_LENGTH = 322, 323  # tags of a TIFF
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


def open_picture(data: bytes, max_pixels: int = MAX_PIXELS, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """Opens an encoded picture after checking what it will cost; its pixels are not decoded yet, and may turn out
    damaged when they are.

    Raises:
        ImageError: more than ``max_pixels`` pixels, or built so that decoding takes far more time or memory than its
            size says.
        Exception: whatever the decoder of a broken picture raises.
    """
    # Each scan of a progressive JPEG costs a pass over the whole picture, and takes only some 30 bytes of the file.
    scans = data.count(b"\xff\xda") if data.startswith(b"\xff\xd8") else 0
    if scans > MAX_SCANS:
        raise ImageError(f"it is a JPEG with {scans} scans, at most {MAX_SCANS} are taken: encode it anew")
    picture = Image.open(io.BytesIO(data), formats=formats)
    if picture.width * picture.height > max_pixels:
        raise ImageError(
            f"it has {picture.width} x {picture.height} = {picture.width * picture.height:,} pixels, the limit is "
            f"{max_pixels:,}: scale it down"
        )
    tags = getattr(picture, "tag_v2", {}) if picture.format == "TIFF" else {}
    tile = tags.get(TILE_WIDTH, 1) * tags.get(TILE_LENGTH, 1)
    if tile > max(max_pixels, MIN_TILE):  # a tile is decoded whole, however little of it the picture shows
        raise ImageError(f"it is a TIFF with tiles of {tile:,} pixels, the limit is {max_pixels:,}: encode it anew")
    return picture


def read_image(path: str | Path) -> np.ndarray:
    """Reads a picture file of any common format: (H, W, 3) uint8 RGB, turned upright as its EXIF data say.

    Raises:
        ImageError: missing, no picture, damaged or cut short, or of a size that :func:`check_image` refuses.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise ImageError("it is no file")
        if path.exists() and path.stat().st_size > MAX_FILE_BYTES:
            raise ImageError(f"it is larger than {MAX_FILE_BYTES >> 20} MiB")
        with open_picture(path.read_bytes()) as file:
            array = np.array(ImageOps.exif_transpose(file).convert("RGB"))
    except ImageError as error:
        raise ImageError(f"image {path} cannot be used: {error}") from error
    except FileNotFoundError as error:
        raise ImageError(f"image {path} does not exist") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"image {path} is not a picture of a known format ({', '.join(FORMATS)})") from error
    except Exception as error:  # of a broken picture: each decoder raises its own
        raise ImageError(f"image {path} cannot be read: {error}") from error
    try:
        return check_image(array)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
