"""sensor_msgs/Image to and from the one image type of the project: ``(H, W, 3)`` uint8 RGB.

Own code instead of cv_bridge, so that every machine decodes alike, and so that a broken message is an
:class:`~acs_core.errors.ImageError` that says what is broken. Encoding names are those of
``sensor_msgs/image_encodings.hpp``.
"""

from __future__ import annotations

import array
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np

from acs_core.errors import ImageError
from acs_core.image import MAX_PIXELS

# What else a camera topic may carry, by name: distances, which would make a senseless grey picture.
_DEPTH = ("16UC1", "32FC1", "64FC1")


class ImageLike(Protocol):
    """The fields of sensor_msgs/Image that matter here; ``data`` is any buffer of bytes."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


@dataclass(frozen=True)
class _Layout:
    """How one encoding lies in memory: ``channels`` values of ``depth`` bytes per pixel; ``code`` is the OpenCV
    conversion to RGB (None: already RGB). ``rows`` (numerator, denominator): stored rows per image row."""

    channels: int
    depth: int = 1
    code: int | None = None
    rows: tuple[int, int] = (1, 1)
    even_width: bool = False


def _wide(names: dict[str, _Layout]) -> dict[str, _Layout]:
    """The 16-bit twins of 8-bit layouts: ``rgb8`` -> ``rgb16``."""
    return {n[:-1] + "16": _Layout(v.channels, 2, v.code, v.rows, v.even_width) for n, v in names.items()}


# OpenCV names a Bayer pattern by the second row's second and third pixel, ROS by the first two rows' corner.
_EIGHT = {
    "rgb8": _Layout(3),
    "bgr8": _Layout(3, code=cv2.COLOR_BGR2RGB),
    "rgba8": _Layout(4, code=cv2.COLOR_RGBA2RGB),
    "bgra8": _Layout(4, code=cv2.COLOR_BGRA2RGB),
    "bayer_rggb8": _Layout(1, code=cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": _Layout(1, code=cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": _Layout(1, code=cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": _Layout(1, code=cv2.COLOR_BayerGB2RGB),
    "mono8": _Layout(1, code=cv2.COLOR_GRAY2RGB),
}
_UYVY = _Layout(2, code=cv2.COLOR_YUV2RGB_UYVY, even_width=True)
_YUYV = _Layout(2, code=cv2.COLOR_YUV2RGB_YUY2, even_width=True)
_LAYOUTS: dict[str, _Layout] = {
    **_EIGHT,
    **_wide(_EIGHT),
    # Typed encodings name no colours; read like OpenCV's own images.
    "8UC1": _EIGHT["mono8"],
    "8UC3": _EIGHT["bgr8"],
    "8UC4": _EIGHT["bgra8"],
    "yuv422": _UYVY,
    "uyvy": _UYVY,
    "yuv422_yuy2": _YUYV,
    "yuyv": _YUYV,
    "nv12": _Layout(1, code=cv2.COLOR_YUV2RGB_NV12, rows=(3, 2), even_width=True),
    "nv21": _Layout(1, code=cv2.COLOR_YUV2RGB_NV21, rows=(3, 2), even_width=True),
}
ENCODINGS = tuple(_LAYOUTS)


def check_image(msg: ImageLike, max_pixels: int = MAX_PIXELS) -> None:
    """Check everything about an image message that can be checked without touching its pixels.

    Cheap enough for a subscription callback, so that a broken frame never takes the place of a good one.

    Raises:
        ImageError: empty, too large, unknown encoding, ``step`` shorter than a row, data shorter than
            ``step x rows``, or odd sizes where chroma is shared by pixel pairs.
    """
    height, width, encoding = int(msg.height), int(msg.width), str(msg.encoding)
    if height <= 0 or width <= 0:
        raise ImageError(f"the image has no pixels: it says {width} x {height}; check the camera driver")
    if height * width > max_pixels:
        more = " or raise max_image_pixels" if max_pixels < MAX_PIXELS else ""
        raise ImageError(
            f"the image has {width} x {height} = {height * width:,} pixels, the limit is {max_pixels:,}; "
            f"send a smaller image{more}"
        )
    layout = _LAYOUTS.get(encoding)
    if layout is None:
        hint = "; that is a depth image, not a colour one (16-bit grey is mono16)" if encoding in _DEPTH else ""
        raise ImageError(f"unknown image encoding {encoding[:40]!r}{hint}; known are {', '.join(ENCODINGS)}")
    if layout.even_width and (width % 2 or (layout.rows != (1, 1) and height % 2)):
        raise ImageError(f"encoding {encoding} stores pixels in pairs, but the image is {width} x {height}")
    row_bytes = width * layout.channels * layout.depth
    if int(msg.step) < row_bytes:
        raise ImageError(
            f"step is {msg.step} bytes, but a row of {width} {encoding} pixels takes {row_bytes}; "
            "the sender fills in step wrongly or names the wrong encoding"
        )
    if int(msg.step) % layout.depth:
        raise ImageError(
            f"step is {msg.step} bytes, not a multiple of the {layout.depth} bytes of one {encoding} value"
        )
    rows = height * layout.rows[0] // layout.rows[1]
    # The padding after the last row may be left out: some drivers do.
    needed, got = int(msg.step) * (rows - 1) + row_bytes, len(msg.data)
    if got < needed:
        raise ImageError(
            f"data is truncated: {got} bytes of {needed} for {width} x {height} {encoding} with step {msg.step}"
        )
    if got > int(msg.step) * rows:
        raise ImageError(
            f"data has {got} bytes, but step x rows is {msg.step} x {rows} = {int(msg.step) * rows}; "
            "height, step or encoding is wrong"
        )


def image_to_rgb(msg: ImageLike, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode an image message to a new, writable ``(H, W, 3)`` uint8 RGB array.

    Row padding is dropped, 16-bit values keep their high byte, alpha is ignored.

    Raises:
        ImageError: as :func:`check_image`.
    """
    check_image(msg, max_pixels)
    layout = _LAYOUTS[str(msg.encoding)]
    height, width, step = int(msg.height), int(msg.width), int(msg.step)
    rows, row_bytes = height * layout.rows[0] // layout.rows[1], width * layout.channels * layout.depth
    raw = np.frombuffer(memoryview(msg.data).cast("B"), dtype=np.uint8)
    # A view, not padded to step * rows: a picture of one row may claim a step of gigabytes.
    plane = np.ndarray((rows, row_bytes), np.uint8, raw, strides=(step, 1))  # (rows, width * channels * depth)
    if layout.depth == 2:
        # The high byte of each value: first when big-endian, second when little-endian.
        plane = plane[:, (0 if msg.is_bigendian else 1) :: 2]
    shape = (rows, width) if layout.channels == 1 else (rows, width, layout.channels)
    pixels = np.ascontiguousarray(plane).reshape(shape)
    return pixels.copy() if layout.code is None else cv2.cvtColor(pixels, layout.code)


def fill_image(msg: Any, rgb: np.ndarray) -> Any:
    """Put an ``(H, W, 3)`` uint8 RGB array into a sensor_msgs/Image as ``rgb8``; the header is left alone.

    Raises:
        ImageError: the array has another shape or type.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ImageError(f"expected an (H, W, 3) uint8 array, got {rgb.shape} {rgb.dtype}")
    msg.height, msg.width = int(rgb.shape[0]), int(rgb.shape[1])
    msg.encoding, msg.is_bigendian, msg.step = "rgb8", 0, int(rgb.shape[1]) * 3
    # rclpy copies an array('B') at once; from an ndarray or memoryview it goes value by value.
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(rgb).tobytes())
    msg.data = data
    return msg
