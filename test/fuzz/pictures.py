"""Targets: pictures, raw and compressed, depth images with their camera info, and tracking over frames."""

from __future__ import annotations

import io
import math
import warnings
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from acs_core.errors import ImageError
from acs_core.geometry import Box
from acs_core.image import check_image as check_picture
from acs_core.image import read_image
from acs_ros.conversions.depth import box_in_space, check_same_view, depth_in_metres
from acs_ros.conversions.images import ENCODINGS, decode_compressed, image_to_rgb
from acs_ros.conversions.pinhole import DepthError, Pinhole
from acs_ros.node.tracker import BoxTracker, TrackedQuery
from fuzz.draw import FuzzedData, change_bytes
from fuzz.scratch import write
from fuzz.target import Broken, Target

LIMIT = 100_000  # pixels, as max_image_pixels
WILD = (0, 1, 2**16, 2**31 - 1, 2**32 - 1)
# Bytes of one pixel, for headers that fit their data.
WIDTHS = {"mono8": 1, "8UC1": 1, "nv12": 1, "nv21": 1, "nv24": 1, "uyvy": 2, "yuyv": 2, "yuv422": 2, "yuv422_yuy2": 2}


def converter(draw: FuzzedData) -> None:
    """Any header and any data of sensor_msgs/Image give an RGB picture of that size, or an ImageError."""
    encoding = draw.pick((*ENCODINGS, "16UC1", "32FC1", "jpeg", "", "rgb8\x00", "\ud800"))
    height, width = draw.integer(0, 12), draw.integer(0, 12)
    each = WIDTHS.get(encoding, 4 if "a8" in encoding else 8 if "a16" in encoding else 6 if "16" in encoding else 3)
    each = (2 if encoding.endswith("16") else 1) if encoding.startswith(("bayer", "mono")) else each
    step = width * each + draw.pick((0, 0, 0, 1, 2, 7, -1))
    rows = 3 * height if encoding == "nv24" else height * 3 // 2 if encoding.startswith("nv") else height
    size = max(0, step * rows + draw.pick((0, 0, 0, 0, -1, 1, -8)))
    if draw.chance(6):
        height = draw.pick(WILD)
    if draw.chance(6):
        width = draw.pick(WILD)
    if draw.chance(6):
        step = draw.pick(WILD)
    data = bytes(size) if draw.chance(2) else (draw.raw(64) * 200)[:size]
    msg = SimpleNamespace(
        height=height, width=width, encoding=encoding, step=step, data=data, is_bigendian=draw.integer(0, 255)
    )
    check_rgb(image_to_rgb(msg, LIMIT), (height, width))


def check_rgb(rgb: np.ndarray, shape: tuple[int, int] | None = None) -> None:
    """(H, W, 3) uint8, of the promised size, not larger than the limit."""
    good = rgb.ndim == 3 and rgb.shape[2] == 3 and rgb.dtype == np.uint8 and 0 < rgb.shape[0] * rgb.shape[1] <= LIMIT
    if not good or (shape is not None and rgb.shape[:2] != shape):
        raise Broken(f"a picture of shape {rgb.shape} and type {rgb.dtype}, the message says {shape}")


@cache
def files() -> tuple[bytes, ...]:
    """Small pictures of every format that is read, in several modes."""
    made = []
    rng = np.random.default_rng(0)
    rgb = PIL.Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8))
    options: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("JPEG", "RGB", {}),
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "RGB", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}),
        ("JPEG", "L", {}),
        ("JPEG", "CMYK", {}),
        *(("PNG", m, {}) for m in ("RGB", "RGBA", "L", "P", "1", "LA", "I;16")),
        ("WEBP", "RGB", {}),
        ("WEBP", "RGBA", {"lossless": True}),
        *(("TIFF", "RGB", {"compression": c}) for c in ("tiff_lzw", "tiff_deflate", "jpeg")),
        *(("TIFF", m, {}) for m in ("RGB", "L", "F", "I;16", "1", "CMYK", "LAB")),
        *(("BMP", m, {}) for m in ("RGB", "P", "1", "RGBA")),
    )
    for kind, mode, option in options:
        buffer = io.BytesIO()
        picture = PIL.Image.new(mode, (24, 20)) if mode in ("I;16", "F", "LAB") else rgb.convert(mode)
        picture.save(buffer, kind, **option)
        made.append(buffer.getvalue())
    return tuple(made)


def compressed(draw: FuzzedData) -> None:
    """Any bytes in a CompressedImage give a picture within the limit, or an ImageError."""
    if draw.chance(8):
        data = draw.raw(300)
    else:
        # Most of what decides lies in the first bytes.
        good = draw.pick(files())
        cut = draw.pick((40, 120, len(good)))
        data = change_bytes(draw, good[:cut], draw.integer(1, 5)) + good[cut:]
    msg = CompressedImage(format=draw.pick(("jpeg", "png", "rgb8; jpeg compressed bgr8", "", "16UC1; compressedDepth")))
    msg.data.frombytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_rgb(decode_compressed(msg, LIMIT, tiff=True))


@cache
def odd_files() -> tuple[bytes, ...]:
    """Pictures of the formats that only files come in."""
    rgb = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8))
    made = []
    for kind, mode in (("GIF", "P"), ("PPM", "RGB"), ("PPM", "L"), ("PPM", "1")):
        buffer = io.BytesIO()
        rgb.convert(mode).save(buffer, kind)
        made.append(buffer.getvalue())
    return (*made, b"P2 24 20 255 # grey\n" + b"7 " * 480, b"P1 24 20\n" + b"1 0 " * 240)


def picture(draw: FuzzedData) -> None:
    """Any file gives a picture that the model takes, or an ImageError; parts are repeated as well as changed."""
    good = draw.pick((*files(), *odd_files()))
    cut = draw.pick((40, 120, len(good)))
    data = change_bytes(draw, good[:cut], draw.integer(1, 5)) + good[cut:]
    if draw.chance(2):
        at, length = draw.integer(0, len(data) - 1), draw.integer(1, 40)
        data = data[:at] + data[at : at + length] * draw.pick((2, 100, 20_000)) + data[at:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if check_picture(read_image(write("picture", data))).shape[2] != 3:
            raise Broken("a picture without three colours")


FLOATS = (0.0, 1.0, -1.0, 500.0, 1e-300, 1e308, math.inf, -math.inf, math.nan)


def depth(draw: FuzzedData) -> None:
    """Any depth image and camera info give finite boxes in space, or a DepthError."""
    width, height = draw.integer(0, 9), draw.integer(0, 9)
    kind = draw.pick(("16UC1", "32FC1", "mono16", "rgb8", ""))
    step = width * (4 if kind == "32FC1" else 2) + draw.pick((0, 0, 1, -1))
    msg = Image(
        height=height if not draw.chance(9) else 2**32 - 1,
        width=width if not draw.chance(9) else 2**32 - 1,
        encoding=kind,
        step=max(0, step) if not draw.chance(9) else 2**32 - 1,
        is_bigendian=draw.integer(0, 1),
    )
    msg.data.frombytes((draw.raw(64) * 20 + bytes(400))[: max(0, step * height)])
    sane = not draw.chance(2)
    number = lambda good: good if sane else draw.pick(FLOATS)  # noqa: E731
    info = CameraInfo(width=draw.pick((8, 640, 0)) if not sane else 8, height=8)
    info.k = [number(500.0), 0.0, number(4.0), 0.0, number(500.0), number(4.0), 0.0, 0.0, 1.0]
    info.p = [number(500.0), 0.0, number(4.0), 0.0, 0.0, number(500.0), number(4.0), 0.0, 0.0, 0.0, 1.0, 0.0]
    info.d = [draw.pick((0.0, 0.1, *FLOATS)) for _ in range(draw.pick((0, 4, 5, 8, 3, 40)))]
    info.distortion_model = draw.pick(("plumb_bob", "equidistant", "nonsense"))
    if draw.chance(2):
        info.roi.x_offset, info.roi.y_offset = draw.pick((0, 1, 2**32 - 1)), draw.pick((0, 2))
        info.roi.width, info.roi.height = draw.pick((0, 4, 7, 2**32 - 1)), draw.pick((0, 4, 6))
        info.binning_x, info.binning_y = draw.pick((0, 1, 2, 2**32 - 1)), draw.pick((0, 1, 2))
    metres = depth_in_metres(msg, draw.pick((0.0, 0.001, 1.0)))
    camera = Pinhole.of(info, draw.pick(((8, 8), (4, 4), (7, 6))), draw.chance(2), draw.chance(2))
    check_same_view(camera, msg)
    x, y = draw.integer(0, 7), draw.integer(0, 7)
    space = box_in_space(Box(x, y, x + draw.pick((1e-9, 1.0, 8.0)), y + 1), metres, camera)
    if not all(map(math.isfinite, (*space.center, *space.size))):
        raise Broken(f"a box in space that is not finite: {space}")


def tracking(draw: FuzzedData) -> None:
    """Frames of any size that the model takes, with any stamps and answers about any of them, give finite tracks."""
    tracker = BoxTracker(draw.pick((0.01, 2.0, 600.0)), draw.pick((0.0, 0.05)))
    rng = np.random.default_rng(draw.integer(0, 255))
    shape, stamps = (48, 64), [0.0]
    for _ in range(draw.integer(1, 6)):
        if draw.chance(3):
            shape = draw.pick(((48, 64), (16, 16), (16, 1600), (1600, 16), (1, 5000), (3, 3)))
        stamps.append(draw.pick((stamps[-1] + 0.1, stamps[-1] + 0.1, stamps[-1], 0.0, -1.0, 2.0**31)))
        frame = rng.integers(0, draw.pick((1, 256)), (*shape, 3), dtype=np.uint8)
        tracks = tracker.take_frame(stamps[-1], check_picture(frame))
        for track in tracks:
            if not all(map(math.isfinite, track.box.as_tuple())) or not 0 <= track.score <= 1:
                raise Broken(f"a track without place or score: {track}")
        x, y = draw.integer(0, shape[1] - 1), draw.integer(0, shape[0] - 1)
        box = Box(x, y, x + draw.pick((0.5, 5.0, 2000.0)), y + draw.pick((0.5, 5.0)))
        tracker.take_answer(draw.pick(stamps), ("key",), [TrackedQuery("key", box, draw.pick((0.0, 0.5, 1.0)))])


TARGETS = (
    Target(
        "converter", "sensor_msgs/Image: every encoding, step, endianness, sizes that lie", converter, (ImageError,)
    ),
    Target(
        "compressed",
        "sensor_msgs/CompressedImage: JPEG, PNG, WebP, TIFF, BMP with changed bytes",
        compressed,
        (ImageError,),
    ),
    Target(
        "picture",
        "picture files of all formats: changed bytes, parts that come thousands of times",
        picture,
        (ImageError,),
    ),
    Target("depth", "depth images and camera info", depth, (DepthError,)),
    Target("tracking", "frames and answers of the tracker", tracking, (ImageError,)),
)
