from __future__ import annotations

import array
import io
import tracemalloc

import numpy as np
import PIL.Image
import pytest
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from acs_core.errors import ImageError
from acs_ros.frames import Frame, decode_compressed, encode_jpeg

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
