"""Interpretation of the stored values of an image as (H, W, 3) uint8 RGB, for files, messages and training alike.

- 8-bit values are unchanged, 1-bit values become 0 and 255, palette indices the colours of the palette. CMYK is
  converted without a colour profile: red is (255 - C)(255 - K) / 255.
- Of 16-bit values the highest 8 bits are kept. If the values use fewer of the 16 bits, ``bits`` is their number, and
  the highest 8 of those are kept.
- Alpha is ignored: there is no background, and a transparent pixel gets its stored colour. Cameras put arbitrary values
  into alpha.
- Of several images in one file (GIF, APNG, TIFF, WebP) the first is used.
- The image is rotated according to its EXIF orientation.
- Floats, signed values and 32-bit values have no agreed white, and are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from acs_core.arguments import whole
from acs_core.errors import ImageError

LEAST_BITS, MOST_BITS = 9, 16
FULL = 2**MOST_BITS - 1
ORIENTATION = 0x0112  # TIFF tags; this one is in EXIF data, too
BITS_PER_SAMPLE, PHOTOMETRIC, PLANAR, SAMPLE_FORMAT = 258, 262, 284, 339
_UPRIGHT = dict(
    enumerate(
        (
            Image.Transpose.FLIP_LEFT_RIGHT,
            Image.Transpose.ROTATE_180,
            Image.Transpose.FLIP_TOP_BOTTOM,
            Image.Transpose.TRANSPOSE,
            Image.Transpose.ROTATE_270,
            Image.Transpose.TRANSVERSE,
            Image.Transpose.ROTATE_90,
        ),
        start=2,
    )
)  # keys: values of the EXIF tag ORIENTATION
_FORMATS_OF_VALUES = {2: "signed values", 3: "floats", 5: "complex values", 6: "complex values"}
_WIDE_COLOURS = ("RGB;16", "RGBA;16", "RGBX;16", "LA;16")


def check_bits(bits: object) -> int:
    """Return ``bits``, the number of bits that 16-bit values use, as an int.

    Raises:
        TypeError: it is not an integer.
        ValueError: it is not in [9, 16].
    """
    return whole("bits", bits, LEAST_BITS, MOST_BITS)


def eight_bits(values: np.ndarray, bits: int = MOST_BITS) -> np.ndarray:
    """Return the highest 8 bits of uint16 ``values`` that use ``bits`` bits, as uint8 of the same shape.

    Raises:
        ImageError: a value does not fit into ``bits``.
    """
    if bits < MOST_BITS and values.size and int(values.max()) >> bits:
        raise ImageError(
            f"it holds the value {int(values.max())}, which {bits} bits (0 to {2**bits - 1}) cannot hold: its values "
            f"fill more than {bits} bits; 16 is the default"
        )
    return (values >> (bits - 8)).astype(np.uint8)


def rgb_pixels(picture: Image.Image, data: bytes, bits: int = MOST_BITS) -> np.ndarray:
    """Decode an opened image to a new (H, W, 3) uint8 RGB array, rotated according to its EXIF orientation.

    Args:
        picture: the opened image, not yet decoded.
        data: the bytes that encode it.
        bits: number of bits that the values of a 16-bit image use. What a file states itself (TIFF of 12 bits, PPM with
            a maximum value) takes precedence.

    Raises:
        ImageError: the values have no agreed meaning; the message says what to do.
        Exception: any exception of the decoder of a damaged image.
    """
    stored = _Stored.of(picture)
    stored.check()
    bits = stored.bits or bits
    if picture.mode.startswith("I"):
        values = np.asarray(_loaded(picture)).astype(np.uint16)  # also out of big-endian ones
        grey = eight_bits(values, bits)
        return _turned(np.repeat((255 - grey if stored.inverted else grey)[..., None], 3, axis=2), picture)
    if stored.white > 255 or (";16" in stored.kind and bits < MOST_BITS):
        return _turned(eight_bits(_wide_colours(picture, data, stored), bits), picture)
    _loaded(picture).info.pop("transparency", None)  # ignored as alpha is, without Pillow's warning
    return np.array(upright(picture).convert("RGB"))


def upright(picture: Image.Image) -> Image.Image:
    """Return the image decoded and rotated according to its EXIF orientation."""
    # Not ImageOps.exif_transpose, which also rewrites all other EXIF data.
    turn = _turn(_loaded(picture))
    return picture if turn is None else picture.transpose(turn)


def _loaded(picture: Image.Image) -> Image.Image:
    picture.load()
    return picture


def _turn(picture: Image.Image) -> Image.Transpose | None:
    """Return how to rotate the decoded image, or None. Pillow and OpenCV rotate a TIFF when they decode it."""
    return None if picture.format == "TIFF" else _UPRIGHT.get(picture.getexif().get(ORIENTATION, 1))


def _turned(rgb: np.ndarray, picture: Image.Image) -> np.ndarray:
    turn = _turn(picture)
    return rgb if turn is None else np.array(Image.fromarray(rgb).transpose(turn))


@dataclass(frozen=True)
class _Stored:
    """Format of the stored values of a file, read before decoding, since Pillow drops it then.

    Attributes:
        kind: Pillow's name of the format, such as "RGB;16B".
        white: maximum value of a PPM if Pillow has to scale by it, else 0.
        bits: number of bits that 16-bit values use if the file states it, else 0.
        inverted: whether 0 is white and Pillow does not invert the values.
        problem: why the values cannot be used, or "".
    """

    kind: str
    white: int = 0
    bits: int = 0
    inverted: bool = False
    problem: str = ""

    @classmethod
    def of(cls, picture: Image.Image) -> _Stored:
        tiles = getattr(picture, "tile", None)
        arguments = tiles[0][3] if tiles else ""
        kind = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
        kind = kind if isinstance(kind, str) else ""
        if picture.format == "PPM" and tiles and tiles[0][0].startswith("ppm") and isinstance(arguments, tuple):
            white = int(arguments[1])
            return cls(kind, white, MOST_BITS if white < FULL else 0)  # scaled to 16 bits, or all bits are there
        if picture.format != "TIFF":
            floats = picture.mode == "F"
            wide = picture.mode == "I" and picture.format != "PPM"
            return cls(kind, problem=_no_white("floats" if floats else "values of 32 bits") if floats or wide else "")
        tags = getattr(picture, "tag_v2", {})
        samples, formats = _numbers(tags, BITS_PER_SAMPLE, 1), _numbers(tags, SAMPLE_FORMAT, 1)
        problem = next((_no_white(_FORMATS_OF_VALUES[f]) for f in formats if f in _FORMATS_OF_VALUES), "")
        if picture.mode in ("I", "F"):
            problem = problem or _no_white("values of 32 bits")
        elif tags.get(PLANAR, 1) == 2 and max(samples) > 8:
            problem = "it is a TIFF with 16-bit colours in separate planes, which is not read: save it interleaved"
        wide = picture.mode.startswith("I;16")
        filled = max(samples) if wide and LEAST_BITS <= max(samples) < MOST_BITS else 0
        return cls(kind, bits=filled, inverted=wide and tags.get(PHOTOMETRIC) == 0, problem=problem)

    def check(self) -> None:
        """Raise ImageError if there is a problem."""
        if self.problem:
            raise ImageError(self.problem)


def _no_white(values: str) -> str:
    return (
        f"it holds {values}, of which nobody knows what is black and what is white: scale them to 8 or 16 bits without "
        "sign, and save it anew"
    )


def _numbers(tags: Any, tag: int, default: int) -> tuple[int, ...]:
    value = tags.get(tag, default)
    return tuple(value) if isinstance(value, tuple) else (value,)


def _wide_colours(picture: Image.Image, data: bytes, stored: _Stored) -> np.ndarray:
    """Return 16-bit colours as (H, W, 3) uint16 RGB, since Pillow returns only their highest 8 bits. Values
    of a PPM with another maximum are scaled to 65535."""
    import cv2

    if picture.format != "PPM" and not stored.kind.startswith(_WIDE_COLOURS):
        raise ImageError(f"16-bit values of the kind {stored.kind} are read with all their bits only: save it as RGB")
    # OpenCV requires one more byte after the last digit of a plain PPM.
    found = cv2.imdecode(np.frombuffer(data + b"\n", np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.dtype != np.uint16 or found.shape[:2] != (picture.height, picture.width):
        raise ImageError("its 16-bit colours cannot be decoded: it is damaged, or of a rare kind; save it anew")
    values: np.ndarray = np.repeat(found[..., None], 3, axis=2) if found.ndim == 2 else found[..., 2::-1]
    if stored.white in (0, FULL):
        return values
    return np.asarray(np.minimum(values, stored.white) * float(FULL) / stored.white).round().astype(np.uint16)
