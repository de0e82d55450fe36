"""One table of encoded pictures and the pixels they mean, for the library, the node and training."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image
from sensor_msgs.msg import CompressedImage
from tiff_files import BITS, EXTRA, ORIENTATION, PHOTOMETRIC, PLANAR, tiff

from acs_core.errors import ImageError
from acs_core.image import read_image
from acs_ros.conversions.bridge import usable_bridge
from acs_ros.conversions.images import Frame, check_image, decode_compressed, image_to_rgb
from training.data.coco import read_coco
from training.data.pairs import choose_pairs
from training.data.pictures import read_picture
from training.errors import DataError

RNG = np.random.default_rng(0)
HIGH = RNG.integers(0, 256, (20, 24, 4), np.uint8)  # what is to be seen
LOW = RNG.integers(0, 256, (20, 24, 4), np.uint8)  # and the lower 8 bits
WIDE = HIGH.astype(np.uint16) << 8 | LOW
TWELVE = WIDE >> 4
RGB, GREY = HIGH[..., :3], np.repeat(HIGH[..., :1], 3, axis=2)
NODE = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")


def pillow(mode: str, pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.ascontiguousarray(pixels))
    assert picture.mode == mode
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def opencv(pixels: np.ndarray, kind: str = ".png") -> bytes:
    """RGB or RGBA to what OpenCV writes."""
    order = {2: None, 3: [2, 1, 0], 4: [2, 1, 0, 3]}.get(pixels.shape[2] if pixels.ndim == 3 else 2)
    _, data = cv2.imencode(kind, pixels if order is None else np.ascontiguousarray(pixels[..., order]))
    return data.tobytes()


def png(depth: int, colour: int, rows: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of ``rows`` (H, W, C), big-endian where they have 16 bits."""
    stored = rows.astype(rows.dtype.newbyteorder(">"))
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in stored))
    head = struct.pack(">IIBBBBB", rows.shape[1], rows.shape[0], depth, colour, 0, 0, 0)
    parts = ((b"IHDR", head), *chunks, (b"IDAT", packed), (b"IEND", b""))
    body = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def palette(alpha: bool) -> bytes:
    picture = Image.fromarray(HIGH[..., 0] % 4, "P")
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 255, 0, 255])
    return pillow("P", picture, **({"transparency": bytes([0, 128, 255, 3])} if alpha else {}))


COLOURS = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90], [255, 0, 255]], np.uint8)[HIGH[..., 0] % 4]
BLACK_AND_WHITE = np.repeat((HIGH[..., :1] > 127).astype(np.uint8) * 255, 3, axis=2)
CMYK = np.broadcast_to(np.array([0, 51, 102, 51], np.uint8), (20, 24, 4))  # (255 - C)(255 - K) / 255
FRAMES = [Image.fromarray(np.full((20, 24), v, np.uint8)) for v in (80, 160)]
FIRST = np.full((20, 24, 3), 80, np.uint8)
PPM12 = np.asarray(TWELVE[..., :3], ">u2")


def tall(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels))


# (encoded, format, pixels)
TABLE = {
    "PNG grey 8": (pillow("L", HIGH[..., 0]), "PNG", GREY),
    "PNG grey 16": (opencv(WIDE[..., 0]), "PNG", GREY),
    "PNG grey 16 of Pillow": (pillow("I;16", WIDE[..., 0]), "PNG", GREY),
    "PNG RGB 8": (pillow("RGB", RGB), "PNG", RGB),
    "PNG RGB 16": (opencv(WIDE[..., :3]), "PNG", RGB),
    "PNG RGBA 16": (opencv(WIDE), "PNG", RGB),
    "PNG grey and alpha 16": (png(16, 4, WIDE[..., [0, 3]]), "PNG", GREY),
    "PNG grey and alpha 8": (pillow("LA", Image.merge("LA", [tall(HIGH[..., 0]), tall(HIGH[..., 3])])), "PNG", GREY),
    "PNG RGBA 8": (pillow("RGBA", HIGH), "PNG", RGB),
    "PNG one colour transparent": (pillow("RGB", RGB, transparency=(1, 2, 3)), "PNG", RGB),
    "PNG 1 bit": (pillow("1", tall(BLACK_AND_WHITE[..., 0]).convert("1")), "PNG", BLACK_AND_WHITE),
    "PNG palette": (palette(False), "PNG", COLOURS),
    "PNG palette with alpha": (palette(True), "PNG", COLOURS),
    "PNG of several": (pillow("L", FRAMES[0], save_all=True, append_images=FRAMES[1:]), "PNG", FIRST),
    "BMP": (pillow("RGB", RGB, "BMP"), "BMP", RGB),
    "BMP RGBA": (pillow("RGBA", HIGH, "BMP"), "BMP", RGB),
    "WebP": (pillow("RGB", RGB, "WEBP", lossless=True), "WEBP", RGB),
    "WebP with alpha": (pillow("RGBA", HIGH, "WEBP", lossless=True, exact=True), "WEBP", RGB),
    "JPEG CMYK": (pillow("CMYK", Image.fromarray(CMYK, "CMYK"), "JPEG", quality=100), "JPEG", (204, 163, 122)),
    "TIFF CMYK": (pillow("CMYK", Image.fromarray(CMYK, "CMYK"), "TIFF"), "TIFF", (204, 163, 122)),
    "TIFF of several": (pillow("L", FRAMES[0], "TIFF", save_all=True, append_images=FRAMES[1:]), "TIFF", FIRST),
    "GIF of several": (pillow("L", FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]), "GIF", FIRST),
    "PPM RGB 16": (b"P6 24 20 65535\n" + WIDE[..., :3].astype(">u2").tobytes(), "PPM", RGB),
    "PPM grey 16": (b"P5 24 20 65535\n" + WIDE[..., 0].astype(">u2").tobytes(), "PPM", GREY),
    "PPM RGB 12": (b"P6 24 20 4095\n" + PPM12.tobytes(), "PPM", RGB),
    "PPM grey 12": (b"P5 24 20 4095\n" + np.ascontiguousarray(PPM12[..., 0]).tobytes(), "PPM", GREY),
    "plain PPM RGB 12": (b"P3 24 20 4095\n" + b" ".join(b"%d" % v for v in PPM12.ravel()), "PPM", RGB),
}
for end in "<>":
    TABLE |= {
        f"TIFF {end} grey 16": (tiff(WIDE[..., 0], end), "TIFF", GREY),
        f"TIFF {end} grey 16 deflated": (tiff(WIDE[..., 0], end, deflate=True), "TIFF", GREY),
        f"TIFF {end} RGB 16": (tiff(WIDE[..., :3], end), "TIFF", RGB),
        f"TIFF {end} RGB 16 deflated": (tiff(WIDE[..., :3], end, deflate=True), "TIFF", RGB),
        f"TIFF {end} RGBA 16": (tiff(WIDE, end, {EXTRA: 2}), "TIFF", RGB),
        f"TIFF {end} RGB 8 in planes": (tiff(RGB, end, {PLANAR: 2}), "TIFF", RGB),
        f"TIFF {end} grey 8, 0 is white": (tiff(HIGH[..., 0], end, {PHOTOMETRIC: 0}), "TIFF", 255 - GREY),
    }
TABLE["TIFF < grey 16, 0 is white"] = (tiff(WIDE[..., 0], "<", {PHOTOMETRIC: 0}), "TIFF", 255 - GREY)


def near(found: np.ndarray, expected: object, lossy: bool) -> None:
    wanted = np.broadcast_to(np.asarray(expected, np.uint8), found.shape)
    assert found.dtype == np.uint8 and np.abs(found.astype(int) - wanted).max() <= (2 if lossy else 0)


def message(data: bytes, said: str = "") -> CompressedImage:
    msg = CompressedImage(format=said)
    msg.data.frombytes(data)
    return msg


def readers(tmp_path: Path, data: bytes, kind: str, **options) -> list[np.ndarray]:
    """The picture by the library, training and, where it takes the format, the node."""
    file = tmp_path / "picture"
    file.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = [read_image(file, **options), read_picture(file, **options)]
        if kind in NODE:
            found.append(Frame(message(data, kind.lower())).rgb(tiff=True, **options))
    return found


@pytest.mark.parametrize("name", TABLE)
def test_a_picture_means_the_same_to_all_three(tmp_path, name):
    data, kind, expected = TABLE[name]
    for found in readers(tmp_path, data, kind):
        assert found.shape == (20, 24, 3)
        near(found, expected, lossy=kind == "JPEG" or "TIFF CMYK" in name)


TWELVE_BITS = {
    "PNG grey": (opencv(TWELVE[..., 0]), "PNG", GREY),
    "PNG RGB": (opencv(TWELVE[..., :3]), "PNG", RGB),
    "PNG RGBA": (opencv(TWELVE), "PNG", RGB),
    "PNG grey and alpha": (png(16, 4, TWELVE[..., [0, 3]]), "PNG", GREY),
    "TIFF grey": (tiff(TWELVE[..., 0]), "TIFF", GREY),
    "TIFF grey, big-endian": (tiff(TWELVE[..., 0], ">"), "TIFF", GREY),
    "TIFF RGB": (tiff(TWELVE[..., :3]), "TIFF", RGB),
    "TIFF RGB, big-endian, deflated": (tiff(TWELVE[..., :3], ">", deflate=True), "TIFF", RGB),
    "PPM RGB": (b"P6 24 20 65535\n" + TWELVE[..., :3].astype(">u2").tobytes(), "PPM", RGB),
    # What states its range is taken at its word.
    "PPM RGB that says so": TABLE["PPM RGB 12"],
    "PPM grey that says so": TABLE["PPM grey 12"],
    "8 bits": (pillow("RGB", RGB), "PNG", RGB),
}


@pytest.mark.parametrize("name", TWELVE_BITS)
def test_twelve_of_sixteen_bits_mean_the_same_to_all_three(tmp_path, name):
    data, kind, expected = TWELVE_BITS[name]
    for found in readers(tmp_path, data, kind, bits=12):
        near(found, expected, lossy=False)


@pytest.mark.parametrize("bits", [9, 10, 14, 15])
def test_other_numbers_of_bits(tmp_path, bits):
    for found in readers(tmp_path, opencv(WIDE[..., 0] >> (16 - bits)), "PNG", bits=bits):
        near(found, GREY, lossy=False)


def test_a_tiff_that_packs_twelve_bits_says_so_itself(tmp_path):
    flat = TWELVE[..., 0].astype(np.uint32).reshape(20, 12, 2)
    packed = np.stack([flat[..., 0] >> 4, (flat[..., 0] & 15) << 4 | flat[..., 1] >> 8, flat[..., 1] & 255], axis=-1)
    data = tiff(packed.astype(np.uint8).reshape(20, 36), "<", {256: 24, BITS: 12})
    for bits in (12, 16):
        for found in readers(tmp_path, data, "TIFF", bits=bits):
            near(found, GREY, lossy=False)


@pytest.mark.parametrize("kind", ["PNG", "PNG 16", "PNG 12", "JPEG", "WEBP", "TIFF", "TIFF 16", "TIFF 12"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_are_followed_by_all_three(tmp_path, kind, orientation):
    quarters = np.kron(np.array([[0, 80, 240], [160, 240, 0]], np.uint8), np.ones((16, 16), np.uint8))  # (32, 48)
    rgb = np.stack([quarters, quarters // 2, 255 - quarters], axis=-1)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    bits = 12 if kind.endswith("12") else 16
    wide = rgb.astype(np.uint16) << (bits - 8)
    if kind.startswith("TIFF"):
        data = tiff(wide if " " in kind else rgb, "<", {ORIENTATION: orientation})
    elif kind in ("JPEG", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": 0}
        data = pillow("RGB", rgb, kind, exif=exif, **options)
    else:
        data = png(16 if " " in kind else 8, 2, wide if " " in kind else rgb, (b"eXIf", exif.tobytes()[6:]))
    # The row and column of the stored picture that the orientation makes the first ones.
    upright = {
        1: rgb,
        2: rgb[:, ::-1],
        3: rgb[::-1, ::-1],
        4: rgb[::-1],
        5: rgb.swapaxes(0, 1),
        6: np.rot90(rgb, -1),
        7: rgb[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(rgb),
    }[orientation]
    for found in readers(tmp_path, data, kind.split()[0], bits=bits):
        assert found.shape == upright.shape
        assert np.abs(found.astype(int) - upright).mean() < (5 if kind == "JPEG" else 0.001)


ONES = np.ones((20, 24), np.float32)
REFUSED = {
    "floats": (tiff(ONES), "floats.*scale them to 8 or 16 bits"),
    "floats, big-endian": (tiff(ONES, ">"), "floats.*scale them"),
    "float colours": (tiff(np.ones((20, 24, 3), np.float32)), "TIFF of a kind that is not read, such as floats"),
    "doubles": (tiff(ONES.astype(float)), "TIFF of a kind that is not read, such as floats"),
    "floats of Pillow": (pillow("F", ONES, "TIFF"), "floats.*scale them"),
    "32 bits with sign": (tiff(ONES.astype(np.int32)), "signed values.*scale them"),
    "32 bits": (tiff(ONES.astype(np.uint32)), "values of 32 bits.*scale them"),
    "32 bits, big-endian": (tiff(ONES.astype(np.uint32), ">"), "TIFF of a kind that is not read"),
    "32 bits of Pillow": (pillow("I", ONES.astype(np.int32), "TIFF"), "signed values|values of 32 bits"),
    "16 bits with sign": (tiff(ONES.astype(np.int16)), "signed values"),
    "8 bits with sign": (tiff(ONES.astype(np.int8)), "signed values"),
    "16-bit colours in planes": (tiff(WIDE[..., :3], "<", {PLANAR: 2}), "separate planes.*save it interleaved"),
    "16-bit grey with alpha": (tiff(WIDE[..., :2], "<", {EXTRA: 2}), "16-bit grey with alpha"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_agreed_meaning_is_refused_by_all_three(tmp_path, name):
    data, says = REFUSED[name]
    file = tmp_path / "a.tif"
    file.write_bytes(data)
    with pytest.raises(ImageError, match=says):
        read_image(file)
    with pytest.raises(DataError, match=says):
        read_picture(file)
    with pytest.raises(ImageError, match=says):
        decode_compressed(message(data), tiff=True)


def test_a_float_pfm_is_refused(tmp_path):
    (tmp_path / "a.pfm").write_bytes(b"Pf\n24 20\n-1.0\n" + ONES.tobytes())
    with pytest.raises(ImageError, match=r"a\.pfm cannot be used: it holds floats"):
        read_image(tmp_path / "a.pfm")


@pytest.mark.parametrize("pixels", [WIDE[..., 0], WIDE[..., :3]])
def test_values_that_do_not_fit_the_bits_are_refused_by_all_three(tmp_path, pixels):
    says = "cannot hold: its values fill more than 12 bits"
    (tmp_path / "a.png").write_bytes(opencv(pixels))
    with pytest.raises(ImageError, match=says):
        read_image(tmp_path / "a.png", bits=12)
    with pytest.raises(DataError, match=says):
        read_picture(tmp_path / "a.png", bits=12)
    with pytest.raises(ImageError, match=says):
        decode_compressed(message(opencv(pixels)), bits=12)
    with pytest.raises(ImageError, match=says):
        image_to_rgb(raw(pixels, "mono16" if pixels.ndim == 2 else "rgb16"), bits=12)


@pytest.mark.parametrize("bits", [8, 17, 12.0, "12", True, None])
def test_numbers_of_bits_that_do_not_exist_are_refused(tmp_path, bits):
    with pytest.raises((TypeError, ValueError), match="bits must be a whole number from 9 to 16"):
        read_image(tmp_path / "none.png", bits=bits)


def test_the_last_value_that_fits_is_white(tmp_path):
    (tmp_path / "a.png").write_bytes(opencv(np.full((20, 24), 4095, np.uint16)))
    assert (read_image(tmp_path / "a.png", bits=12) == 255).all()


def raw(pixels: np.ndarray, encoding: str, big: bool = False) -> SimpleNamespace:
    data = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).tobytes()
    height, width = pixels.shape[:2]
    return SimpleNamespace(
        height=height, width=width, encoding=encoding, is_bigendian=int(big), step=len(data) // height, data=data
    )


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    ("pixels", "encoding", "bits", "name"),
    [
        (WIDE[..., 0], "mono16", 16, "PNG grey 16"),
        (WIDE[..., 0], "16UC1", 16, "PNG grey 16"),
        (WIDE[..., :3], "rgb16", 16, "PNG RGB 16"),
        (WIDE, "rgba16", 16, "PNG RGBA 16"),
        (TWELVE[..., 0], "mono16", 12, "PNG grey"),
        (TWELVE[..., 0], "16UC1", 12, "PNG grey"),
        (TWELVE[..., :3], "rgb16", 12, "PNG RGB"),
        (TWELVE, "rgba16", 12, "PNG RGBA"),
        (HIGH[..., 0], "mono8", 12, "PNG grey 8"),
        (HIGH, "rgba8", 16, "PNG RGBA 8"),
    ],
)
def test_raw_messages_mean_what_files_mean(tmp_path, pixels, encoding, bits, name, big):
    data, kind, _ = (TWELVE_BITS if bits == 12 and pixels.dtype == np.uint16 else TABLE)[name]
    found = image_to_rgb(raw(pixels, encoding, big), bits=bits, grey_16uc1=True)
    # Where cv_bridge is installed, it rounds 16-bit values.
    rounded = 1 if bits == 16 and not big and usable_bridge() and encoding.endswith("16") else 0
    for other in readers(tmp_path, data, kind, bits=bits):
        np.testing.assert_allclose(found.astype(int), other.astype(int), rtol=0, atol=rounded)


def test_16uc1_is_a_depth_image_unless_it_is_said_to_be_grey():
    png16 = message(opencv(WIDE[..., 0]), "16UC1; png compressed ")
    for call in (
        lambda: check_image(raw(WIDE[..., 0], "16UC1")),
        lambda: image_to_rgb(raw(WIDE[..., 0], "16UC1")),
        lambda: decode_compressed(png16),
    ):
        with pytest.raises(ImageError, match=r"depth image, not a colour one.*set accept_16uc1"):
            call()
    np.testing.assert_array_equal(decode_compressed(png16, grey_16uc1=True), GREY)
    Frame(SimpleNamespace(**vars(raw(WIDE[..., 0], "16UC1")))).check(grey_16uc1=True)


def test_bayer_values_of_twelve_bits_keep_their_colours():
    tile = np.array([[200, 100], [100, 50]], np.uint16) << 4
    found = image_to_rgb(raw(np.tile(tile, (4, 4)), "bayer_rggb16"), bits=12)
    assert np.abs(found.astype(int) - (200, 100, 50)).max() <= 1


def test_a_data_set_says_how_many_bits_its_pictures_fill(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").write_bytes(opencv(TWELVE[..., 0]))

    def content(bits: object) -> str:
        import json

        entry = {"id": 1, "file_name": "a.png", "width": 24, "height": 20} | ({"bits": bits} if bits else {})
        note = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 12, 12], "area": 144}
        return json.dumps({"images": [entry], "annotations": [note], "categories": [{"id": 1, "name": "cup"}]})

    file = tmp_path / "instances.json"
    for bits, expected in ((12, GREY), (None, GREY >> 4)):
        file.write_text(content(bits))
        (pair,) = choose_pairs(read_coco(file), ["large"])
        np.testing.assert_array_equal(pair.read(), expected)
    for bits in (8, 17, "12", 12.5):
        file.write_text(content(bits))
        assert "bits is no whole number from 9 to 16" in read_coco(file).problems.lines()[0]
