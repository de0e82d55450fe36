from __future__ import annotations

import array
import tracemalloc
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acs_core.errors import ImageError
from acs_ros.image_conversion import ENCODINGS, check_image, fill_image, image_to_rgb

RGB = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
GREY = RGB[..., 0]


def message(pixels: np.ndarray, encoding: str, *, padding: int = 0, big: bool = False, cut: int = 0) -> SimpleNamespace:
    """An image message of ``pixels`` (rows, width[, channels]), with ``padding`` bytes after each row."""
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(pixels.shape[0], -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    data = rows.tobytes()
    height = pixels.shape[0] * 2 // 3 if encoding in ("nv12", "nv21") else pixels.shape[0]
    return SimpleNamespace(
        height=height,
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=int(big),
        step=rows.shape[1],
        data=array.array("B", data[: len(data) - cut]),
    )


def grey3(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


ALPHA = np.concatenate([RGB, np.full((4, 6, 1), 7, np.uint8)], axis=2)
WIDE = GREY.astype(np.uint16) * 256 + 5
EXACT = [
    (RGB, "rgb8", False, RGB),
    (RGB[..., ::-1], "bgr8", False, RGB),
    (RGB[..., ::-1], "8UC3", False, RGB),
    (ALPHA, "rgba8", False, RGB),
    (ALPHA[..., [2, 1, 0, 3]], "bgra8", False, RGB),
    (GREY, "mono8", False, grey3(GREY)),
    (GREY, "8UC1", False, grey3(GREY)),
    (WIDE.astype("<u2"), "mono16", False, grey3(GREY)),
    (WIDE.astype(">u2"), "mono16", True, grey3(GREY)),
    ((RGB.astype("<u2") << 8), "rgb16", False, RGB),
]


@pytest.mark.parametrize("padding", [0, 2, 10])
@pytest.mark.parametrize(("pixels", "encoding", "big", "expected"), EXACT)
def test_pixels_come_out_as_they_are(pixels, encoding, big, expected, padding):
    got = image_to_rgb(message(pixels, encoding, padding=padding, big=big))
    assert got.dtype == np.uint8 and got.flags.writeable and np.array_equal(got, expected)


# A flat colour: red 200, green 100, blue 50. Each pattern names the colours of its upper left 2 x 2 pixels.
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("depth", [8, 16])
def test_bayer_patterns_keep_their_colours(pattern, depth):
    value = {"r": 200, "g": 100, "b": 50}
    tile = np.array([value[c] for c in pattern], dtype=np.uint16).reshape(2, 2)
    mosaic = np.tile(tile, (4, 4))
    pixels = mosaic.astype(np.uint8) if depth == 8 else (mosaic << 8).astype("<u2")
    got = image_to_rgb(message(pixels, f"bayer_{pattern}{depth}", padding=2))
    assert np.abs(got.astype(int) - (200, 100, 50)).max() <= 1


@pytest.mark.parametrize(
    ("encoding", "order"), [("yuv422", "uyvy"), ("uyvy", "uyvy"), ("yuyv", "yuyv"), ("yuv422_yuy2", "yuyv")]
)
def test_yuv_422_keeps_a_flat_colour(encoding, order):
    y, u, v = (int(c) for c in cv2.cvtColor(np.full((1, 1, 3), (200, 100, 50), np.uint8), cv2.COLOR_RGB2YUV)[0, 0])
    # OpenCV's packed formats are studio swing (16-235), its plain YUV is full swing.
    y, u, v = 16 + y * 219 // 255, 128 + (u - 128) * 224 // 255, 128 + (v - 128) * 224 // 255
    pair = {"uyvy": [u, y, v, y], "yuyv": [y, u, y, v]}[order]
    got = image_to_rgb(message(np.tile(np.array(pair, np.uint8), (4, 3)).reshape(4, 6, 2), encoding, padding=4))
    assert np.abs(got.astype(int) - (200, 100, 50)).max() <= 25
    assert got[..., 0].min() > got[..., 1].max() > got[..., 2].max()


@pytest.mark.parametrize("encoding", ["nv12", "nv21"])
def test_planar_yuv_of_grey_is_grey(encoding):
    planes = np.concatenate([np.full((4, 6), 126, np.uint8), np.full((2, 6), 128, np.uint8)])
    got = image_to_rgb(message(planes, encoding))
    assert got.shape == (4, 6, 3) and np.abs(got.astype(int) - 128).max() <= 2


def test_the_last_row_may_come_without_its_padding():
    assert np.array_equal(image_to_rgb(message(RGB, "rgb8", padding=6, cut=6)), RGB)


@pytest.mark.parametrize("container", [bytes, bytearray, memoryview, lambda d: np.frombuffer(d, np.uint8)])
def test_data_may_be_any_buffer(container):
    msg = message(RGB, "rgb8", padding=3)
    msg.data = container(msg.data.tobytes())
    assert np.array_equal(image_to_rgb(msg), RGB)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"width": 0}, "no pixels"),
        ({"height": 0}, "no pixels"),
        ({"encoding": ""}, "unknown image encoding ''"),
        ({"encoding": "rgb9"}, "known are rgb8"),
        ({"encoding": "32FC1"}, "depth image"),
        ({"encoding": "16UC1", "step": 12}, "depth image.*mono16"),
        ({"encoding": "x" * 500}, "unknown image encoding"),
        ({"step": 17}, "a row of 6 rgb8 pixels takes 18"),
        ({"step": 0}, "step is 0"),
        ({"data": b""}, "0 bytes of 72"),
        ({"data": bytes(71)}, "truncated"),
        ({"data": bytes(73)}, "73 bytes"),
        ({"height": 3}, "height, step or encoding is wrong"),
        ({"encoding": "mono16", "step": 19}, "not a multiple"),
        ({"encoding": "uyvy", "width": 5}, "in pairs"),
        ({"width": 9000, "height": 9000}, "81,000,000 pixels, the limit is 64,000,000; send a smaller image$"),
    ],
)
def test_broken_messages_are_named(change, said):
    msg = message(RGB, "rgb8")
    for field, value in change.items():
        setattr(msg, field, value)
    with pytest.raises(ImageError, match=said):
        image_to_rgb(msg)


def test_the_size_limit_is_an_option():
    with pytest.raises(ImageError, match="raise max_image_pixels"):
        check_image(message(RGB, "rgb8"), max_pixels=23)
    check_image(message(RGB, "rgb8"), max_pixels=24)


@given(
    height=st.integers(-1, 5),
    width=st.integers(-1, 5),
    encoding=st.sampled_from([*ENCODINGS, "", "jpeg"]),
    step=st.integers(-2, 40),
    size=st.integers(0, 200),
    big=st.integers(0, 255),
)
def test_any_header_gives_an_image_or_an_image_error(height, width, encoding, step, size, big):
    msg = SimpleNamespace(height=height, width=width, encoding=encoding, step=step, data=bytes(size), is_bigendian=big)
    try:
        got = image_to_rgb(msg)
    except ImageError:
        return
    assert got.shape == (height, width, 3) and got.dtype == np.uint8


def test_filled_messages_read_back(image):
    msg = fill_image(image(), RGB[:, ::-1])
    assert (msg.height, msg.width, msg.step, msg.encoding) == (4, 6, 18, "rgb8")
    assert np.array_equal(image_to_rgb(msg), RGB[:, ::-1])


@pytest.mark.parametrize("pixels", [GREY, RGB.astype(float), ALPHA])
def test_only_rgb_bytes_fill_a_message(image, pixels):
    with pytest.raises(ImageError, match="expected"):
        fill_image(image(), pixels)


def test_a_single_row_with_a_lying_step_costs_no_memory():
    msg = message(RGB[:1], "rgb8")
    msg.step = 2**32 - 1  # the padding after the last row may be left out: this much was once allocated
    tracemalloc.start()
    try:
        assert np.array_equal(image_to_rgb(msg), RGB[:1])
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
