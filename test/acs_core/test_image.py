import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from acs_core.errors import ImageError
from acs_core.image import MAX_PIXELS, as_image, check_image, open_picture, read_image

GOOD = np.zeros((20, 30, 3), np.uint8)
ROTATED = Image.Exif()
ROTATED[0x0112] = 6  # shown turned by 90 degrees


@pytest.mark.parametrize(
    ("image", "says"),
    [
        ("picture.png", "must be a numpy array"),
        (None, "must be a numpy array"),
        (np.zeros((20, 30), np.uint8), "grey picture"),
        (np.zeros((20, 30, 4), np.uint8), "alpha channel"),
        (np.zeros((3, 20, 30), np.uint8), r"shape \(H, W, 3\), got \(3, 20, 30\)"),
        (np.zeros((20, 30, 3), np.float32), "uint8 values from 0 to 255, got float32"),
        (np.zeros((20, 30, 3), np.float64), r"got float64 \(shares of one: \(image \* 255\)"),
        (np.zeros((20, 30, 3), np.uint16), r"got uint16 \(their highest 8 bits: \(image >> 8\)"),
        (np.zeros((20, 30, 3), np.int32), "got int32$"),
        (np.zeros((0, 30, 3), np.uint8), "30 x 0 pixels; each side needs at least 16"),
        (np.zeros((15, 30, 3), np.uint8), "at least 16"),
        (np.zeros((16, 1601, 3), np.uint8), "longer than 100 times"),
        (np.broadcast_to(np.uint8(0), (8000, 8001, 3)), "at most 64 million"),
    ],
)
def test_what_cannot_be_used_is_said(image, says):
    with pytest.raises(ImageError, match=says):
        check_image(image)


def test_a_good_image_is_not_copied_and_a_view_is_made_contiguous():
    assert check_image(GOOD) is GOOD
    flipped = check_image(np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)[..., ::-1])
    assert flipped.flags.c_contiguous and flipped[0, 0].tolist() == [2, 1, 0]


def wide_tiff(folder):
    """A grey TIFF of 16 bits in which 0 is white."""
    path = folder / "white-is-zero.tif"
    Image.fromarray(np.full((20, 30), 0x1234, np.uint16)).save(path, tiffinfo={262: 0})
    return path


@pytest.mark.parametrize(
    "save",
    [
        lambda folder: Image.new("RGB", (30, 20), (1, 2, 3)).save(folder / "a.png"),
        lambda folder: Image.new("P", (30, 20), 3).save(folder / "a.png", transparency=3),
        lambda folder: Image.new("LA", (30, 20), (7, 9)).save(folder / "a.png"),
        lambda folder: Image.fromarray(np.full((20, 30), 0x1234, np.uint16)).save(folder / "a.png"),
        lambda folder: Image.new("RGB", (30, 20)).save(folder / "a.jpg", exif=ROTATED),
        wide_tiff,
    ],
)
def test_a_pil_image_means_what_its_file_means(tmp_path, save):
    save(tmp_path)
    [path] = tmp_path.iterdir()
    with Image.open(path) as picture:
        info = dict(picture.info)
        assert np.array_equal(as_image(picture), read_image(path))
        assert np.array_equal(as_image(picture), as_image(str(path)))
        assert picture.info.get("transparency") == info.get("transparency")
    assert as_image(GOOD) is GOOD


@pytest.mark.parametrize(
    ("image", "says"),
    [
        ([[0]], "must be a path, a PIL image, or a numpy array .* not a list"),
        (Image.new("F", (30, 20)), "the PIL image cannot be used: it holds floats"),
        (Image.new("L", (9000, 9000)), "at most 64 million"),
        ("none.png", "image none.png does not exist"),
        (GOOD[:3], "at least 16"),
    ],
)
def test_what_is_no_image_is_said(image, says):
    with pytest.raises(ImageError, match=says):
        as_image(image)


@pytest.mark.parametrize(
    ("mode", "value", "expected"), [("L", 7, 7), ("RGBA", (7, 7, 7, 9), 7), ("1", 1, 255), ("RGB", (7, 7, 7), 7)]
)
def test_files_of_other_modes_become_rgb(tmp_path, mode, value, expected):
    Image.new(mode, (30, 20), value).save(tmp_path / "a.png")
    array = read_image(tmp_path / "a.png")
    assert (array.shape, array.dtype) == ((20, 30, 3), np.uint8)
    assert (array == expected).all()


def test_exif_orientation_is_followed(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=ROTATED)
    assert read_image(tmp_path / "a.jpg").shape == (30, 20, 3)


def test_missing_foreign_damaged_and_tiny_files(tmp_path):
    with pytest.raises(ImageError, match="does not exist"):
        read_image(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(ImageError, match="not a picture of a known format"):
        read_image(tmp_path / "text.png")
    with pytest.raises(ImageError, match="it is no file"):
        read_image(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(tmp_path / "a.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    with pytest.raises(ImageError, match=r"b.png: the image is 8 x 8 pixels"):
        read_image(tmp_path / "b.png")


def test_a_file_that_claims_a_huge_picture_is_not_decoded(tmp_path):
    side = int(MAX_PIXELS**0.5) + 1
    Image.new("1", (side, side)).save(tmp_path / "bomb.png")
    with pytest.raises(ImageError, match="8001 x 8001 = 64,016,001 pixels, the limit is 64,000,000"):
        read_image(tmp_path / "bomb.png")


def jpeg_with_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is there again and again."""
    buffer = io.BytesIO()
    Image.new("L", (32, 32)).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    scan = data[data.rfind(b"\xff\xda") : -2]
    return data[:-2] + scan * (count - data.count(b"\xff\xda")) + data[-2:]


def tiff_with_tile(side: int) -> bytes:
    """A TIFF of 16 x 16 grey pixels in one deflated tile of ``side`` x ``side``."""
    packed = zlib.compress(bytes(side * side))
    tags = [(256, 16), (257, 16), (258, 8), (259, 8), (262, 1), (277, 1), (322, side), (323, side), (324, 134)]
    tags.append((325, len(packed)))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + packed


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (jpeg_with_scans(51), "a JPEG with 51 scans, at most 50"),
        (tiff_with_tile(2048), "a TIFF with tiles of 4,194,304 pixels, the limit is 1,000,000"),
    ],
)
def test_what_costs_more_than_its_size_says_is_not_decoded(data, says):
    with pytest.raises(ImageError, match=says):
        open_picture(data, 1_000_000)


@pytest.mark.parametrize("data", [jpeg_with_scans(50), tiff_with_tile(1024)])
def test_unusual_pictures_below_the_limits_are_decoded(data):
    assert open_picture(data, 2000).convert("RGB").size in ((32, 32), (16, 16))


def test_decoders_that_no_camera_needs_are_left_out():
    with pytest.raises(OSError, match="cannot identify"):
        open_picture(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n" + bytes(100))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ImageError, match="it is no file"):
        read_image(tmp_path / "a.png")


def test_a_file_of_gigabytes_is_not_read(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(2**33)  # a hole: it takes no disk
    with pytest.raises(ImageError, match="larger than 512 MiB"):
        read_image(tmp_path / "a.png")
