from __future__ import annotations

import array
import io
import tracemalloc
from types import SimpleNamespace

import cv2
import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from acs_core.errors import ImageError
from acs_ros.conversions.bridge import usable_bridge
from acs_ros.conversions.images import (
    ENCODINGS,
    NS,
    Frame,
    check_image,
    decode_compressed,
    encode_jpeg,
    fill_image,
    header_of,
    image_to_rgb,
    stamp_ns,
)

RGB = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
GREY = RGB[..., 0]


def message(pixels: np.ndarray, encoding: str, *, padding: int = 0, big: bool = False, cut: int = 0) -> SimpleNamespace:
    """An image message of ``pixels`` (rows, width[, channels]), with ``padding`` bytes after each row."""
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(pixels.shape[0], -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    data = rows.tobytes()
    height = pixels.shape[0] * {"nv12": 2, "nv21": 2, "nv24": 1}.get(encoding, 3) // 3
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
    assert got.dtype == np.uint8 and got.flags.writeable
    # Where cv_bridge is installed, it rounds 16-bit values.
    assert np.abs(got.astype(int) - expected).max() <= (1 if usable_bridge() and encoding.endswith("16") else 0)


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


@pytest.mark.parametrize(("padding", "cut"), [(0, 0), (3, 0), (3, 6)])
def test_nv24_has_two_chroma_values_per_pixel(padding, cut):
    """A row of luma has the step; a row of chroma has twice the step, padding included."""
    rng = np.random.default_rng(1)
    luma = rng.integers(16, 236, (4, 5), np.uint8)
    chroma = rng.integers(16, 241, (4, 10), np.uint8)  # U V U V ...
    rows = [*np.pad(luma, ((0, 0), (0, padding))).reshape(-1), *np.pad(chroma, ((0, 0), (0, 2 * padding))).reshape(-1)]
    data = np.array(rows, np.uint8).tobytes()
    msg = SimpleNamespace(
        height=4, width=5, encoding="nv24", is_bigendian=0, step=5 + padding, data=data[: len(data) - cut]
    )
    # BT.601 in studio swing, as OpenCV decodes NV12
    y, u, v = 1.164 * (luma - 16.0), chroma[:, ::2] - 128.0, chroma[:, 1::2] - 128.0
    expected = np.stack([y + 1.596 * v, y - 0.813 * v - 0.391 * u, y + 2.018 * u], axis=-1)
    assert np.abs(image_to_rgb(msg) - np.clip(expected, 0, 255)).max() <= 1.5
    msg.data = msg.data[: 4 * (5 + padding) + 3 * 2 * (5 + padding) + 9]  # the last row of chroma has 10 bytes
    with pytest.raises(ImageError, match="truncated"):
        image_to_rgb(msg)


@pytest.mark.parametrize(
    ("encoding", "rows", "each"), [("rgb8", 4, 3), ("mono16", 4, 2), ("nv12", 6, 1), ("nv24", 12, 1)]
)
def test_bytes_after_the_last_row_are_ignored_and_reported(encoding, rows, each):
    whole = np.random.default_rng(2).integers(0, 256, rows * 6 * each, np.uint8).tobytes()
    msg = Image(height=4, width=6, encoding=encoding, step=6 * each, data=whole)
    expected = image_to_rgb(msg)
    assert Frame(msg).note == ""
    msg.data = whole + bytes(7)
    assert np.array_equal(image_to_rgb(msg), expected)
    assert f"data has {len(whole) + 7} bytes" in Frame(msg).note and "the last 7 are ignored" in Frame(msg).note


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


PICTURE = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)


def packed(kind: str, picture: PIL.Image.Image, **options) -> CompressedImage:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    msg = CompressedImage(format=kind.lower())
    msg.data.frombytes(buffer.getvalue())
    return msg


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_come_back_as_they_were(kind):
    np.testing.assert_array_equal(decode_compressed(packed(kind, PIL.Image.fromarray(PICTURE)), tiff=True), PICTURE)


def test_tiff_is_taken_only_where_it_is_wanted():
    with pytest.raises(ImageError, match=r"no picture of a known format \(JPEG, PNG, WEBP, BMP\)"):
        decode_compressed(packed("TIFF", PIL.Image.fromarray(PICTURE)))


@pytest.mark.parametrize(
    ("mode", "value", "expected"), [("L", 7, (7, 7, 7)), ("RGBA", (1, 2, 3, 0), (1, 2, 3)), ("I;16", 0x1234, (18,) * 3)]
)
def test_grey_and_alpha_become_rgb(mode, value, expected):
    got = decode_compressed(packed("PNG", PIL.Image.new(mode, (4, 3), value)))
    assert got.shape == (3, 4, 3) and tuple(got[0, 0]) == expected


def test_a_jpeg_goes_there_and_back():
    smooth = np.tile(np.linspace(0, 255, 30, dtype=np.uint8)[None, :, None], (20, 1, 3))
    msg = encode_jpeg(smooth, Header(frame_id="c"), 95)
    assert msg.header.frame_id == "c" and "jpeg" in msg.format
    assert abs(Frame(msg).rgb().astype(int) - smooth).max() < 12


@pytest.mark.parametrize(
    ("data", "kind", "limit", "said"),
    [
        (b"nonsense", "jpeg", 1000, "no picture of a known format"),
        (None, "png", 599, "30 x 20 = 600 pixels, the limit is 599"),
        (b"GIF89a" + bytes(40), "gif", 1000, "no picture of a known format"),
        (b"x", "16UC1; compressedDepth", 1000, "a depth image"),
    ],
)
def test_what_cannot_be_decoded_is_named(data, kind, limit, said):
    msg = packed("PNG", PIL.Image.fromarray(PICTURE))
    msg.format = kind
    if data is not None:
        msg.data = data
    with pytest.raises(ImageError, match=said):
        decode_compressed(msg, limit)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_picture_cut_short_is_no_picture(kind):
    msg = packed(kind, PIL.Image.fromarray(PICTURE))
    msg.data = msg.data[: len(msg.data) * 2 // 3]
    with pytest.raises(ImageError, match="cannot be decoded"):
        decode_compressed(msg)


def test_a_small_message_cannot_cost_a_minute():
    """Each of its scans would be a pass over the whole picture."""
    msg = packed("JPEG", PIL.Image.new("L", (64, 64)), progressive=True)
    data = msg.data.tobytes()
    msg.data = array.array("B", data[:-2] + data[data.rfind(b"\xff\xda") : -2] * 100 + data[-2:])
    with pytest.raises(ImageError, match="a JPEG with 106 scans"):
        decode_compressed(msg)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_decompression_bomb_is_refused_by_its_header(kind):
    """Some kilobytes that would be 192 MB."""
    msg = packed(kind, PIL.Image.new("RGB", (8000, 8001)), **({"lossless": True} if kind == "WEBP" else {}))
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match="64,008,000 pixels, the limit is 64,000,000"):
            decode_compressed(msg)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("stamp", [0, 1, NS - 1, NS, 12 * NS + 345, -1, -3 * NS, (2**31 - 1) * NS])
def test_a_stamp_comes_back(stamp):
    header = header_of(stamp, "camera")
    assert stamp_ns(header) == stamp and header.frame_id == "camera"
    assert 0 <= header.stamp.nanosec < NS


def test_the_fields_are_seconds_and_nanoseconds():
    header = Header()
    header.stamp.sec, header.stamp.nanosec = 7, 250
    assert stamp_ns(header) == 7_000_000_250
    assert header_of(7_000_000_250, "") == header
