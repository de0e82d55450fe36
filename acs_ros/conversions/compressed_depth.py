"""Decoding of depth images that image_transport's ``compressedDepth`` plugin compressed.

Such a message is a header of 12 bytes (an int32 and two float32, little-endian) and an image of 16-bit values, as PNG
or by RVL (Wilson, Fast Lossless Depth Image Compression, SIGCHI 2017). The values of 16UC1 are the depth itself. Those
of 32FC1 are a quantised inverse depth: with the two numbers ``a`` and ``b`` of the header, depth = a / (value - b), and
0 is no depth.
"""

from __future__ import annotations

import array
import io
import struct

import numpy as np
import PIL.Image
from sensor_msgs.msg import CompressedImage, Image

from acs_core.image import MAX_PIXELS
from acs_ros.conversions.pinhole import DepthError

CONFIG = struct.Struct("<iff")
SIZE = struct.Struct("<II")  # columns and rows, before RVL data
ENCODINGS = ("16UC1", "mono16", "32FC1")
MAX_NIBBLES = 10  # of one number in RVL data: 30 bits


def decode_compressed_depth(msg: CompressedImage, max_pixels: int = MAX_PIXELS) -> Image:
    """Return the depth image in a compressedDepth message, of encoding 16UC1, mono16 or 32FC1, with its header.

    Raises:
        DepthError: another format, broken data, or more than ``max_pixels`` pixels.
    """
    name = f"the compressed depth image ({msg.format[:40]!r}, {len(msg.data)} bytes)"
    encoding, _, rest = (part.strip() for part in msg.format.partition(";"))
    if encoding not in ENCODINGS or not rest.startswith("compressedDepth"):
        raise DepthError(
            f"{name} is none: its format must be like '16UC1; compressedDepth png'; use the compressedDepth topic of "
            "the driver"
        )
    codec = rest.removeprefix("compressedDepth").strip() or "png"
    data = bytes(msg.data)
    if len(data) <= CONFIG.size:
        raise DepthError(f"{name} has no data: fix its publisher")
    _, a, b = CONFIG.unpack_from(data)
    if codec == "png":
        values = _decode_png(data[CONFIG.size :], max_pixels, name)
    elif codec == "rvl":
        values = _decode_rvl(data[CONFIG.size :], max_pixels, name)
    else:
        raise DepthError(f"{name} is compressed by {codec[:20]!r}: set the publisher's format to png or rvl")
    if encoding == "32FC1":
        values = _from_inverse(values, a, b)
    made = Image(header=msg.header, height=values.shape[0], width=values.shape[1], encoding=encoding)
    made.step = values.shape[1] * values.itemsize
    pixels = array.array("B")
    pixels.frombytes(values.astype(values.dtype.newbyteorder("<")).tobytes())
    made.data = pixels
    return made


def _from_inverse(values: np.ndarray, a: float, b: float) -> np.ndarray:
    """The depth (H, W) float32 of quantised inverse depths; NaN for 0."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        depth = np.float32(a) / (values.astype(np.float32) - np.float32(b))
    return np.where(values > 0, depth, np.float32(np.nan)).astype(np.float32)


def _check_size(width: int, height: int, max_pixels: int, name: str) -> None:
    if not 0 < width * height <= max_pixels:
        raise DepthError(f"{name} has {width} x {height} pixels, allowed are 1 to {max_pixels:,}: fix its publisher")


def _decode_png(data: bytes, max_pixels: int, name: str) -> np.ndarray:
    try:
        with PIL.Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            _check_size(*picture.size, max_pixels, name)
            if picture.mode not in ("I;16", "I"):
                raise DepthError(f"{name} has pixels of kind {picture.mode}, not 16-bit ones: fix its publisher")
            return np.asarray(picture).astype(np.uint16)
    except DepthError:
        raise
    except Exception as error:  # for broken images, a decoder raises exceptions of its own
        raise DepthError(f"{name} cannot be decoded: {error}") from error


def _decode_rvl(data: bytes, max_pixels: int, name: str) -> np.ndarray:
    """Decode runs: a number of zeros, a number of values, and these values as differences, each from the value before.

    A number is a sequence of nibbles of 3 bits, the lowest first; the fourth bit says that another one follows. Nibbles
    are stored from the highest of each 32-bit little-endian word on.
    """
    if len(data) < SIZE.size:
        raise DepthError(f"{name} cannot be decoded: it ends within its size")
    width, height = SIZE.unpack_from(data)
    _check_size(width, height, max_pixels, name)
    words = np.frombuffer(data[SIZE.size :][: (len(data) - SIZE.size) // 4 * 4], "<u4")
    nibbles = ((words[:, None] >> np.arange(28, -1, -4, dtype=np.uint32)) & 0xF).reshape(-1).astype(np.int64)
    ends = np.flatnonzero(nibbles < 8)
    if not ends.size:
        raise DepthError(f"{name} cannot be decoded: it ends within a number")
    nibbles = nibbles[: ends[-1] + 1]
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > MAX_NIBBLES:
        raise DepthError(f"{name} cannot be decoded: it has a number of more than 30 bits")
    places = np.arange(nibbles.size) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((nibbles & 7) << (3 * places), starts)
    values = np.zeros(width * height, np.uint16)
    listed = numbers.tolist()  # noise has a hundred thousand runs, which numpy would take one by one slowly
    heads, ends_of_zeros, counts = [], [], []
    done, at = 0, 0
    while done < values.size:
        if at + 2 > len(listed):
            raise DepthError(f"{name} cannot be decoded: it ends after {done} of {values.size} pixels")
        zeros, count = listed[at], listed[at + 1]
        if zeros + count > values.size - done or zeros + count == 0 or at + 2 + count > len(listed):
            raise DepthError(
                f"{name} cannot be decoded: a run after {done} of {values.size} pixels is too long or empty"
            )
        heads.append(at)
        ends_of_zeros.append(done + zeros)
        counts.append(count)
        done, at = done + zeros + count, at + 2 + count
    coded = np.delete(numbers[:at], np.concatenate([heads, np.add(heads, 1)]))
    before = np.cumsum(counts) - counts  # values in the runs before each run
    places = np.repeat(np.subtract(ends_of_zeros, before), counts) + np.arange(coded.size)
    values[places] = np.cumsum((coded >> 1) ^ -(coded & 1)) & 0xFFFF
    return values.reshape(height, width)
