"""Reading and checking of images: (H, W, 3) uint8 RGB, of a size that the models accept; files, PIL images, arrays."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from acs_core import arguments
from acs_core.artifacts.json_io import open_file
from acs_core.errors import ImageError
from acs_core.geometry import Box
from acs_core.picture_cost import check_cost
from acs_core.pixels import MOST_BITS, ORIENTATION, check_bits, rgb_pixels

MIN_SIDE = 16  # pixels: less than one patch of the LVLMs
MAX_PIXELS = 64_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")  # no other decoder of Pillow is used
MAX_FILE_BYTES = 512 * 2**20
MIN_TILE = 2**20  # pixels: a small TIFF may have tiles larger than itself
TILE_WIDTH, TILE_LENGTH = 322, 323  # TIFF tags
IMAGE_WIDTH, IMAGE_LENGTH = 256, 257
MAX_ASPECT = 100  # longer side over shorter; Qwen2.5-VL's own limit is 200

ImageInput = np.ndarray | Image.Image | str | os.PathLike[str]


def as_image(image: object) -> np.ndarray:
    """Return an image in any of the usual forms as a C-contiguous (H, W, 3) uint8 RGB array.

    Args:
        image: an array (H, W, 3) uint8 in RGB order, which is not copied; a PIL image, which is converted as
            :func:`read_image` converts files (EXIF orientation, palettes, 16 bits; alpha is ignored) and not changed;
            or the path of a file, for :func:`read_image`.

    Raises:
        ImageError: it has another type, or cannot be used; see :func:`check_image` and :func:`read_image`.
        ValueError: it is an empty path.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image(arguments.path("image", image))
    if isinstance(image, Image.Image):
        return _from_pillow(image)
    if not isinstance(image, np.ndarray):
        raise ImageError(
            "the image must be a path, a PIL image, or a numpy array (H, W, 3) uint8 in RGB order, not a "
            f"{type(image).__name__}"
        )
    return check_image(image)


def _from_pillow(picture: Image.Image) -> np.ndarray:
    if picture.width * picture.height > MAX_PIXELS:
        raise ImageError(
            f"the image is {picture.width} x {picture.height} pixels; at most {MAX_PIXELS // 10**6} million are taken: "
            "scale it down"
        )
    try:
        picture.load()
        own = picture.copy()  # what follows changes its ``info``
        own.format = picture.format  # copy() drops the format and the tags, which say how the values are meant
        if hasattr(picture, "tag_v2"):
            own.tag_v2 = picture.tag_v2  # type: ignore[attr-defined]
        array = rgb_pixels(own, b"")
    except ImageError as error:
        raise ImageError(f"the PIL image cannot be used: {error}") from error
    except Exception as error:  # each decoder raises its own exceptions for damaged images
        raise ImageError(f"the PIL image cannot be read: {error}") from error
    return check_image(array)


def check_image(image: object) -> np.ndarray:
    """Return ``image`` as a C-contiguous (H, W, 3) uint8 RGB array, without a copy if it is one already.

    Raises:
        ImageError: it is not an array, has another shape or dtype, or is too small, too large, or too elongated.
    """
    if not isinstance(image, np.ndarray):
        raise ImageError(f"the image must be a numpy array (H, W, 3) uint8 in RGB order, not a {type(image).__name__}")
    if image.ndim != 3 or image.shape[2] != 3:
        hint = " (a grey picture: stack it three times)" if image.ndim == 2 else ""
        hint = " (four channels: drop the alpha channel)" if image.ndim == 3 and image.shape[2] == 4 else hint
        raise ImageError(f"the image must have the shape (H, W, 3), got {image.shape}{hint}")
    if image.dtype != np.uint8:
        hint = " (their highest 8 bits: (image >> 8).astype(np.uint8); >> 4 where 12 bits are filled)"
        hint = hint if image.dtype == np.uint16 else ""
        hint = " (shares of one: (image * 255).astype(np.uint8))" if image.dtype.kind == "f" else hint
        raise ImageError(f"the image must hold uint8 values from 0 to 255, got {image.dtype}{hint}")
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
    """Open an encoded image after checking the cost of decoding it.

    The pixels are not decoded yet; damage in them is found later.

    Args:
        data: content of the image file.
        max_pixels: maximum number of pixels.
        formats: accepted formats, as Pillow names them.

    Raises:
        ImageError: the image has more than ``max_pixels`` pixels, or decoding would take far more time or memory than
            its size suggests.
        Exception: from the decoder of a damaged image.
    """
    check_cost(data, max_pixels)
    picture = Image.open(io.BytesIO(data), formats=formats)
    if picture.width * picture.height > max_pixels:
        raise ImageError(
            f"it has {picture.width} x {picture.height} = {picture.width * picture.height:,} pixels, the limit is "
            f"{max_pixels:,}: scale it down"
        )
    tags = getattr(picture, "tag_v2", {}) if picture.format == "TIFF" else {}
    tile = tags.get(TILE_WIDTH, 1) * tags.get(TILE_LENGTH, 1)
    if tile > max(max_pixels, MIN_TILE):  # a tile is decoded whole, even if the image is smaller
        raise ImageError(f"it is a TIFF with tiles of {tile:,} pixels, the limit is {max_pixels:,}: encode it anew")
    return picture


def decode_picture(
    data: bytes, max_pixels: int = MAX_PIXELS, formats: tuple[str, ...] = FORMATS, bits: int = MOST_BITS
) -> np.ndarray:
    """Decode an encoded image to (H, W, 3) uint8 RGB, rotated according to its EXIF orientation.

    Args:
        data: the encoded image.
        max_pixels: maximum number of pixels.
        formats: accepted formats, by Pillow's names.
        bits: number of bits that the values of a 16-bit image use, 9 to 16. :mod:`acs_core.pixels` describes how values
            are interpreted.

    Raises:
        ImageError: too many pixels, too costly, or values without an agreed meaning.
        PIL.UnidentifiedImageError: the format is not one of ``formats``.
        Exception: any exception of the decoder of a damaged image.
    """
    try:
        with open_picture(data, max_pixels, formats) as picture:
            return rgb_pixels(picture, data, bits)
    except UnidentifiedImageError as error:
        if data[:2] in (b"II", b"MM") and "TIFF" in formats:
            raise ImageError(
                "it is a TIFF of a kind that is not read, such as floats or 16-bit grey with alpha: save it with 8 or "
                "16 bits without sign, grey or RGB"
            ) from error
        raise


@dataclass(frozen=True)
class PictureFrame:
    """Frame of the pixels of an encoded image.

    Attributes:
        stored: (width, height) in pixels, before the EXIF orientation.
        orientation: EXIF orientation, 1 (upright) to 8.
    """

    stored: tuple[int, int]
    orientation: int

    @property
    def upright(self) -> tuple[int, int]:
        """(width, height) of the image as :func:`read_image` returns it."""
        width, height = self.stored
        return (height, width) if self.orientation >= 5 else (width, height)

    def to_upright(self, box: Box) -> Box:
        """Return ``box`` of the stored pixels in pixels of the upright image."""
        width, height = self.stored
        x1, y1, x2, y2 = box.as_tuple()
        if self.orientation in (2, 3, 7, 8):
            x1, x2 = width - x2, width - x1
        if self.orientation in (3, 4, 6, 7):
            y1, y2 = height - y2, height - y1
        return Box(y1, x1, y2, x2) if self.orientation >= 5 else Box(x1, y1, x2, y2)


def picture_frame(data: bytes) -> PictureFrame:
    """Return the frame of the encoded image ``data``, without decoding its pixels.

    Raises:
        ImageError: it is no image that :func:`read_image` reads; or its header is damaged.
    """
    try:
        with open_picture(data) as picture:
            size, orientation = picture.size, picture.getexif().get(ORIENTATION, 1)
            if picture.format == "TIFF":  # Pillow gives the upright size
                tags = getattr(picture, "tag_v2", {})
                size = int(tags[IMAGE_WIDTH]), int(tags[IMAGE_LENGTH])
    except ImageError:
        raise
    except Exception as error:  # each decoder raises its own exceptions for damaged images
        raise ImageError(f"the image cannot be read: {error}") from error
    return PictureFrame(size, orientation if orientation in range(1, 9) else 1)


def read_image(path: str | Path, bits: int = MOST_BITS) -> np.ndarray:
    """Read an image file: (H, W, 3) uint8 RGB, rotated according to its EXIF orientation.

    Args:
        path: the file.
        bits: number of bits that the values of a 16-bit image use, 9 to 16: 12 for a 12-bit camera with values up to
            4095. The highest 8 of them are kept; :mod:`acs_core.pixels` describes how other values are interpreted.

    Raises:
        ImageError: the file is missing, not an image, damaged or truncated, has values without an agreed meaning
            (floats, 32 bits, signed values), or is refused by :func:`check_image`.
        TypeError: ``path`` is not a path, or ``bits`` not an integer.
        ValueError: ``path`` is empty, or ``bits`` out of range.
    """
    path, bits = arguments.path("path", path), check_bits(bits)
    try:
        with open_file(path) as content:
            raw = content.read(MAX_FILE_BYTES + 1)
        if len(raw) > MAX_FILE_BYTES:
            raise ImageError(f"it is larger than {MAX_FILE_BYTES >> 20} MiB")
        array = decode_picture(raw, bits=bits)
    except ImageError as error:
        raise ImageError(f"image {path} cannot be used: {error}") from error
    except FileNotFoundError as error:
        raise ImageError(f"image {path} does not exist") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"image {path} is not a picture of a known format ({', '.join(FORMATS)})") from error
    except Exception as error:  # each decoder raises its own exceptions for damaged images
        problem = str(error).removeprefix("it cannot be read: ")
        raise ImageError(f"image {path} cannot be read: {problem}") from error
    try:
        return check_image(array)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
