"""Conversion of image messages, raw and compressed, to and from ``(H, W, 3)`` uint8 RGB, and of header stamps.

The header of a message is checked first, so that a broken message raises an :class:`~acs_core.errors.ImageError` with
the reason. The pixels are then converted by cv_bridge where a usable one is installed and knows the encoding
(:mod:`acs_ros.conversions.bridge`), else by the decoder of this module; both give the same 8-bit pixels, and of 16-bit
values pixels that differ by at most 1. Encoding names are those of ``sensor_msgs/image_encodings.hpp``.
"""

from __future__ import annotations

import array
import io
from dataclasses import dataclass, replace
from typing import Any, Protocol

import cv2
import numpy as np
import PIL.Image
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from acs_core.errors import ImageError
from acs_core.image import MAX_PIXELS, decode_picture
from acs_core.pixels import MOST_BITS, eight_bits
from acs_ros.conversions.bridge import BRIDGED_ENCODINGS, bridge_state, usable_bridge
from acs_ros.conversions.transforms import NS, RigidTransform

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")  # what image_transport and its plugins send; no other decoder is used


def stamp_ns(header: Header) -> int:
    """Return the stamp of a header in nanoseconds."""
    return int(header.stamp.sec) * NS + int(header.stamp.nanosec)


def header_of(stamp: int, frame_id: str) -> Header:
    """Return the header with a stamp in nanoseconds and a frame_id; the inverse of :func:`stamp_ns`."""
    made = Header(frame_id=frame_id)
    made.stamp.sec, made.stamp.nanosec = divmod(stamp, NS)
    return made


# Depth encodings, which would give a meaningless grey image.
_DEPTH = ("16UC1", "32FC1", "64FC1")


class ImageLike(Protocol):
    """Fields of sensor_msgs/Image that the conversion reads; ``data`` is any buffer of bytes."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


@dataclass(frozen=True)
class _Layout:
    """Memory layout of an encoding.

    Each pixel has ``channels`` values of ``depth`` bytes; ``code`` is the OpenCV conversion to RGB (None: already RGB),
    and ``rows`` (numerator, denominator) the number of stored rows per image row. ``full_chroma``: a plane of luma is
    followed by one with two chroma values per pixel, whose rows have twice the step.
    """

    channels: int
    depth: int = 1
    code: int | None = None
    rows: tuple[int, int] = (1, 1)
    even_width: bool = False
    full_chroma: bool = False


def _wide(names: dict[str, _Layout]) -> dict[str, _Layout]:
    """Return the 16-bit counterparts of 8-bit layouts: ``rgb8`` -> ``rgb16``."""
    return {n[:-1] + "16": _Layout(v.channels, 2, v.code, v.rows, v.even_width) for n, v in names.items()}


# OpenCV names a Bayer pattern by the second and third pixel of the second row, ROS by the upper left 2 x 2 pixels.
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
    "nv24": _Layout(1, rows=(3, 1), full_chroma=True),
}
ENCODINGS = tuple(_LAYOUTS)
_TYPED_GREY = "16UC1"  # 16-bit grey if the caller says so, else depth


def check_image(msg: ImageLike, max_pixels: int = MAX_PIXELS, grey_16uc1: bool = False) -> None:
    """Check everything about an image message that does not require its pixels.

    This is fast enough for a subscription callback, so that a broken frame never replaces a valid one. Encoding 16UC1,
    which depth images have, is accepted only with ``grey_16uc1``, as mono16. Bytes after the last row are ignored, as
    cv_bridge ignores them; :func:`surplus_note` reports them.

    Raises:
        ImageError: the image is empty or too large, its encoding is unknown, ``step`` is shorter than a row, data is
            shorter than ``step x rows``, or a size is odd although pixel pairs share their chroma.
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
    layout = _layout(encoding, grey_16uc1)
    if layout is None:
        hint = "; that is a depth image, not a colour one (16-bit grey is mono16)" if encoding in _DEPTH else ""
        hint += ": where it is grey after all, set accept_16uc1" if encoding == _TYPED_GREY else ""
        meant = next((known for known in ENCODINGS if known.lower() == encoding.strip().lower()), "")
        hint += f"; it is written {meant}: fix the camera driver" if meant else ""
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
    last = 2 if layout.full_chroma else 1  # rows that the last stored row takes
    needed, got = int(msg.step) * (rows - last) + row_bytes * last, len(msg.data)
    if got < needed:
        raise ImageError(
            f"data is truncated: {got} bytes of {needed} for {width} x {height} {encoding} with step {msg.step}"
        )


def surplus_note(msg: ImageLike) -> str:
    """Return a warning about bytes after the last row of a message that passed :func:`check_image`; empty without."""
    layout = _layout(str(msg.encoding), True)
    if layout is None:
        return ""
    rows = int(msg.height) * layout.rows[0] // layout.rows[1]
    got, used = len(msg.data), int(msg.step) * rows
    if got <= used:
        return ""
    return (
        f"data has {got} bytes, but step x rows is {msg.step} x {rows} = {used}: the last {got - used} are ignored; "
        "if the image looks wrong, so is height, step or encoding"
    )


def _layout(encoding: str, grey_16uc1: bool) -> _Layout | None:
    return _LAYOUTS.get("mono16" if grey_16uc1 and encoding == _TYPED_GREY else encoding)


def image_to_rgb(
    msg: ImageLike, max_pixels: int = MAX_PIXELS, bits: int = MOST_BITS, grey_16uc1: bool = False
) -> np.ndarray:
    """Decode an image message to a new, writable ``(H, W, 3)`` uint8 RGB array.

    Row padding is dropped. Values are interpreted as in files (:mod:`acs_core.pixels`): of 16-bit values, which use
    ``bits`` bits, the highest 8 are kept (cv_bridge rounds to them instead), and alpha is ignored. ``grey_16uc1`` as in
    :func:`check_image`.

    Raises:
        ImageError: as :func:`check_image`, or a value does not fit into ``bits``.
    """
    check_image(msg, max_pixels, grey_16uc1)
    layout = _layout(str(msg.encoding), grey_16uc1)
    if layout is None:
        raise ImageError(f"unknown image encoding {str(msg.encoding)[:40]!r}")
    if bits == MOST_BITS and _suits_bridge(msg, layout):
        bridge = usable_bridge()
        if bridge is not None and msg.encoding in bridge_state().encodings:
            try:
                return np.asarray(bridge.imgmsg_to_cv2(msg, "rgb8"))
            except Exception:  # whatever its OpenCV refuses is decoded below, or refused there with a reason
                return _decode(msg, layout, bits)
    return _decode(msg, layout, bits)


def decode_unbridged(msg: ImageLike) -> np.ndarray:
    """Decode like :func:`image_to_rgb` with its default arguments, but without cv_bridge."""
    check_image(msg)
    return _decode(msg, _LAYOUTS[str(msg.encoding)], MOST_BITS)


def _suits_bridge(msg: ImageLike, layout: _Layout) -> bool:
    """Whether cv_bridge reads this message correctly.

    It knows fewer encodings; of big-endian images it calls what numpy 2 does not have; it needs the padding of the last
    row; and it ignores padding that is not a whole number of pixels, so that every row would be shifted.
    """
    whole_pixels = int(msg.step) % (layout.channels * layout.depth) == 0
    padded = len(msg.data) >= int(msg.step) * int(msg.height)
    return str(msg.encoding) in BRIDGED_ENCODINGS and not msg.is_bigendian and whole_pixels and padded


def _decode(msg: ImageLike, layout: _Layout, bits: int) -> np.ndarray:
    """Decode a checked message."""
    height, width, step = int(msg.height), int(msg.width), int(msg.step)
    rows, row_bytes = height * layout.rows[0] // layout.rows[1], width * layout.channels * layout.depth
    if layout.full_chroma:
        rows = height  # of luma
    raw = np.frombuffer(memoryview(msg.data).cast("B"), dtype=np.uint8)
    # A view rather than padding to step * rows: an image of one row may claim a step of gigabytes.
    plane = np.ndarray((rows, row_bytes), np.uint8, raw, strides=(step, 1))  # (rows, width * channels * depth)
    if layout.depth == 2 and bits == MOST_BITS:
        # The high byte of each value: first when big-endian, second when little-endian.
        plane = plane[:, (0 if msg.is_bigendian else 1) :: 2]
    elif layout.depth == 2:
        plane = eight_bits(np.ascontiguousarray(plane).view(">u2" if msg.is_bigendian else "<u2"), bits)
    if layout.full_chroma:
        # OpenCV has no code for it. Each pixel is converted as a pair of its own: U Y V Y -> 2 equal pixels.
        chroma = np.ndarray((height, width, 2), np.uint8, raw, offset=step * height, strides=(2 * step, 2, 1))
        pairs = np.stack([chroma[..., 0], plane, chroma[..., 1], plane], axis=-1).reshape(height, 2 * width, 2)
        return np.ascontiguousarray(cv2.cvtColor(pairs, cv2.COLOR_YUV2RGB_UYVY)[:, ::2])
    shape = (rows, width) if layout.channels == 1 else (rows, width, layout.channels)
    pixels = np.ascontiguousarray(plane).reshape(shape)
    return pixels.copy() if layout.code is None else cv2.cvtColor(pixels, layout.code)


def fill_image(msg: Any, rgb: np.ndarray) -> Any:
    """Copy an ``(H, W, 3)`` uint8 RGB array into a sensor_msgs/Image as ``rgb8``; the header is not changed.

    Raises:
        ImageError: the array has another shape or type.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ImageError(f"expected an (H, W, 3) uint8 array, got {rgb.shape} {rgb.dtype}")
    msg.height, msg.width = int(rgb.shape[0]), int(rgb.shape[1])
    msg.encoding, msg.is_bigendian, msg.step = "rgb8", 0, int(rgb.shape[1]) * 3
    # rclpy copies an array('B') at once, but an ndarray or memoryview value by value.
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(rgb).tobytes())
    msg.data = data
    return msg


@dataclass(frozen=True)
class Frame:
    """One image of one camera, which is checked on arrival and decoded when the model is free.

    Attributes:
        msg: The image message.
        camera: Name of the camera in the parameter ``cameras``, "" for the only one.
        own: The image came with a goal, not from the camera.
        depth: The depth image that belongs to it.
        info: The camera info that belongs to it.
        transform_to_target: The transform from its frame to the parameter ``target_frame``.
        no_depth: Why there is no depth image, if so.
        no_info: Why there is no camera info, if so.
        why_no_transform: Why there is no transform, if so; empty also where none is needed.
    """

    msg: Image | CompressedImage
    camera: str = ""
    own: bool = False
    depth: Image | None = None
    info: CameraInfo | None = None
    transform_to_target: RigidTransform | None = None
    no_depth: str = ""
    no_info: str = ""
    why_no_transform: str = ""

    @property
    def header(self) -> Header:
        """Header of the image, which every answer about this frame carries."""
        return self.msg.header

    @property
    def note(self) -> str:
        """A warning about a usable image, or an empty string: :func:`surplus_note`."""
        return "" if isinstance(self.msg, CompressedImage) else surplus_note(self.msg)

    def check(self, max_pixels: int = MAX_PIXELS, grey_16uc1: bool = False) -> None:
        """Check everything that does not require decoding; encoding 16UC1 is accepted only with ``grey_16uc1``.

        Raises:
            ImageError: the frame cannot be used.
        """
        if isinstance(self.msg, CompressedImage):
            if not len(self.msg.data):
                raise ImageError(f"the compressed image ({self.msg.format[:40]!r}) has no data")
        else:
            check_image(self.msg, max_pixels, grey_16uc1)

    def rgb(
        self, max_pixels: int = MAX_PIXELS, tiff: bool = False, bits: int = MOST_BITS, grey_16uc1: bool = False
    ) -> np.ndarray:
        """Decode to a new (H, W, 3) uint8 RGB array.

        Args:
            max_pixels: maximum number of pixels.
            tiff: whether compressed images may be TIFF.
            bits: number of bits that the values of 16-bit images use, 9 to 16.
            grey_16uc1: whether encoding 16UC1 is accepted, as mono16.

        Raises:
            ImageError: the frame cannot be used.
        """
        if isinstance(self.msg, CompressedImage):
            return decode_compressed(self.msg, max_pixels, tiff, bits, grey_16uc1)
        return image_to_rgb(self.msg, max_pixels, bits, grey_16uc1)

    def with_companions(self, depth: Image | None, info: CameraInfo | None, no_depth: str, no_info: str) -> Frame:
        """The same frame with the depth image and camera info that belong to it, or why there are none."""
        return replace(self, depth=depth, info=info, no_depth=no_depth, no_info=no_info)

    def with_transform(self, transform: RigidTransform | None, why_not: str) -> Frame:
        """The same frame with its transform to the target frame, or why there is none."""
        return replace(self, transform_to_target=transform, why_no_transform=why_not)


def decode_compressed(
    msg: CompressedImage,
    max_pixels: int = MAX_PIXELS,
    tiff: bool = False,
    bits: int = MOST_BITS,
    grey_16uc1: bool = False,
) -> np.ndarray:
    """Decode a compressed image to (H, W, 3) uint8 RGB, as :func:`acs_core.image.read_image` decodes a file.

    The image is rotated according to its EXIF orientation; alpha is ignored.

    Args:
        msg: the message.
        max_pixels: maximum number of pixels.
        tiff: whether TIFF is accepted; its decoder writes a line to stderr for each broken file.
        bits: number of bits that 16-bit values use, 9 to 16.
        grey_16uc1: whether a ``format`` that begins with 16UC1 is accepted, as in raw images.

    Raises:
        ImageError: unknown format, broken or cut short, more than ``max_pixels`` pixels, or values without an agreed
            meaning.
    """
    formats = (*FORMATS, "TIFF") if tiff else FORMATS
    name = f"compressed image ({msg.format[:40]!r}, {len(msg.data)} bytes)"
    if "compressedDepth" in msg.format:
        raise ImageError(f"{name} is a depth image, not a colour one")
    if msg.format.startswith("16UC1") and not grey_16uc1:
        raise ImageError(
            f"{name} is a depth image, not a colour one (16-bit grey is mono16): where it is grey after all, set "
            "accept_16uc1"
        )
    try:
        return decode_picture(bytes(msg.data), max_pixels, formats, bits)
    except ImageError as error:
        raise ImageError(f"{name} cannot be used: {error}") from error
    except PIL.UnidentifiedImageError as error:
        raise ImageError(f"{name} is no picture of a known format ({', '.join(formats)})") from error
    except Exception as error:  # for broken images, each decoder raises exceptions of its own
        raise ImageError(f"{name} cannot be decoded: {error}") from error


def encode_jpeg(rgb: np.ndarray, header: Header, quality: int = 80) -> CompressedImage:
    """Encode an (H, W, 3) uint8 RGB array as a JPEG message."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(rgb).save(buffer, "JPEG", quality=quality)
    msg = CompressedImage(header=header, format="rgb8; jpeg compressed rgb8")
    msg.data.frombytes(buffer.getvalue())
    return msg
