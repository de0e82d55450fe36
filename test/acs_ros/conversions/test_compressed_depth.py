"""compressedDepth messages, encoded here as image_transport's plugin encodes them."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from acs_ros.conversions.compressed_depth import decode_compressed_depth
from acs_ros.conversions.depth import depth_in_metres
from acs_ros.conversions.pinhole import DepthError

DEPTH_MAX, QUANTIZATION = 10.0, 100.0  # the plugin's defaults
A = QUANTIZATION * (QUANTIZATION + 1)
B = 1 - A / DEPTH_MAX


def nibbles_of(number: int) -> list[int]:
    found = []
    while True:
        low, number = number & 7, number >> 3
        found.append(low | 8 if number else low)
        if not number:
            return found


def encode_rvl(values: np.ndarray) -> bytes:
    """The codec of the paper, written as its description says: one number at a time."""
    flat, nibbles, at, previous = values.reshape(-1).tolist(), [], 0, 0
    while at < len(flat):
        zeros = 0
        while at + zeros < len(flat) and flat[at + zeros] == 0:
            zeros += 1
        at += zeros
        count = 0
        while at + count < len(flat) and flat[at + count] != 0:
            count += 1
        nibbles += nibbles_of(zeros) + nibbles_of(count)
        for value in flat[at : at + count]:
            change = value - previous
            nibbles += nibbles_of(2 * change if change >= 0 else -2 * change - 1)
            previous = value
        at += count
    nibbles += [0] * (-len(nibbles) % 8)
    words = [int("".join(f"{n:x}" for n in nibbles[i : i + 8]), 16) for i in range(0, len(nibbles), 8)]
    height, width = values.shape
    return struct.pack("<II", width, height) + struct.pack(f"<{len(words)}I", *words)


def png(values: np.ndarray) -> bytes:
    return cv2.imencode(".png", values)[1].tobytes()


CODECS = {"png": png, "rvl": encode_rvl}


def message(values: np.ndarray, codec: str = "png", encoding: str = "16UC1", a: float = 0.0, b: float = 0.0):
    return CompressedImage(
        header=Header(frame_id="camera"),
        format=f"{encoding}; compressedDepth {codec}".strip(),
        data=struct.pack("<iff", 0, a, b) + CODECS.get(codec, png)(values),
    )


@pytest.mark.parametrize("codec", CODECS)
@given(st.integers(1, 7), st.integers(1, 9), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_16_bit_depth_is_lossless(codec, height, width, seed, holes):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 65536, (height, width), np.uint16)
    values[rng.random(values.shape) < holes] = 0
    made = decode_compressed_depth(message(values, codec))
    assert (made.encoding, made.header.frame_id, made.step) == ("16UC1", "camera", 2 * width)
    assert np.array_equal(np.frombuffer(made.data, "<u2").reshape(made.height, made.width), values)


@pytest.mark.parametrize("codec", CODECS)
def test_float_depth_comes_back_within_its_quantisation(codec):
    depth = np.random.default_rng(0).uniform(0.3, 9.0, (6, 8)).astype(np.float32)
    depth[0, :3] = np.nan, np.inf, 20.0  # no depth, or more than the plugin's depth_max
    with np.errstate(invalid="ignore"):
        inverse = np.where(depth < DEPTH_MAX, A / depth + B, 0).astype(np.uint16)
    metres = depth_in_metres(decode_compressed_depth(message(inverse, codec, "32FC1", A, B)))
    assert np.isnan(metres[0, :3]).all()
    known = ~np.isnan(metres)
    assert known.sum() == depth.size - 3
    # One step of the quantised inverse depth A / depth
    assert (np.abs(metres[known] - depth[known]) <= depth[known] ** 2 / A * 1.5 + 1e-6).all()


def test_old_plugins_name_no_codec():
    values = np.array([[1, 2], [3, 0]], np.uint16)
    msg = message(values)
    for name in ("16UC1; compressedDepth", "16UC1;compressedDepth png", "mono16; compressedDepth"):
        msg.format = name
        assert np.array_equal(np.frombuffer(decode_compressed_depth(msg).data, "<u2"), values.reshape(-1))


def raised(msg, **options) -> str:
    with pytest.raises(DepthError) as error:
        decode_compressed_depth(msg, **options)
    return str(error.value)


VALUES = np.arange(12, dtype=np.uint16).reshape(3, 4)


def rvl(data: bytes) -> CompressedImage:
    return CompressedImage(format="16UC1; compressedDepth rvl", data=bytes(12) + data)


@pytest.mark.parametrize(
    ("msg", "said"),
    [
        (CompressedImage(format="bgr8; jpeg compressed bgr8", data=b"x"), "its format must be like '16UC1; compressed"),
        (CompressedImage(format="8UC1; compressedDepth png", data=b"x"), "its format must be like"),
        (CompressedImage(format="16UC1; compressedDepth", data=bytes(12)), "has no data"),
        (message(VALUES, "jxl"), "is compressed by 'jxl': set the publisher's format to png or rvl"),
        (message(VALUES.astype(np.uint8)), "has pixels of kind L, not 16-bit ones"),
        (CompressedImage(format="16UC1; compressedDepth png", data=bytes(100)), "cannot be decoded: cannot identify"),
        (rvl(bytes(4)), "it ends within its size"),
        (rvl(struct.pack("<II", 0, 4)), "has 0 x 4 pixels, allowed are 1 to"),
        (rvl(struct.pack("<II", 2**31, 2**31)), "has 2147483648 x 2147483648 pixels"),
        (rvl(struct.pack("<II", 4, 4)), "it ends within a number"),
        (rvl(struct.pack("<III", 4, 4, 0xFFFFFFFF)), "it ends within a number"),
        (rvl(struct.pack("<IIII", 4, 4, 0xFFFFFFFF, 0xFFF00000)), "a number of more than 30 bits"),
        (rvl(struct.pack("<III", 4, 4, 0)), "a run after 0 of 16 pixels is too long or empty"),
        (rvl(struct.pack("<III", 4, 4, 0x7F700000)), "a run after 0 of 16 pixels is too long"),
        (rvl(struct.pack("<III", 4, 4, 0x10101010)), "it ends after 4 of 16 pixels"),
    ],
)
def test_broken_messages_are_named(msg, said):
    text = raised(msg)
    assert text.startswith("the compressed depth image (") and said in text


def test_large_images_are_refused_before_they_are_decoded():
    assert "has 4 x 3 pixels, allowed are 1 to 11" in raised(message(VALUES, "png"), max_pixels=11)
    assert "has 4 x 3 pixels, allowed are 1 to 11" in raised(message(VALUES, "rvl"), max_pixels=11)


@given(st.sampled_from(["png", "rvl"]), st.data())
def test_any_change_gives_a_depth_image_or_a_reason(codec, data):
    msg = message(VALUES, codec)
    changed = bytearray(msg.data)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    msg.data = bytes(changed[: data.draw(st.integers(0, len(changed)))])
    try:
        made = decode_compressed_depth(msg, max_pixels=1000)
    except DepthError:
        return
    assert len(made.data) == made.height * made.step
