"""Small pictures that would cost minutes or gigabytes are refused by their bytes; unusual ones are read."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from acs_core.errors import ImageError
from acs_core.image import open_picture, read_image
from acs_core.picture_cost import MAX_TAGS, check_cost

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)


def encoded(kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_with(chunks: bytes, behind: bool = False) -> bytes:
    data = encoded("PNG")
    at = data.index(b"IEND") - 4 if behind else 33
    return data[:at] + chunks + data[at:]


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def jpeg_with(segments: bytes) -> bytes:
    data = encoded("JPEG")
    return data[:2] + segments + data[2:]


def exif(tags: int) -> bytes:
    """EXIF data with so many tags, each of which names the same kilobyte."""
    entries = b"".join(struct.pack("<HHII", i, 2, 1000, 8) for i in range(tags))
    return b"II*\0" + struct.pack("<IH", 8, tags) + entries + bytes(1000)


def exif_segments(tags: int) -> bytes:
    data = exif(tags)
    return b"".join(segment(0xE1, b"Exif\0\0" + data[i : i + 60_000]) for i in range(0, len(data), 60_000))


def gif_with(blocks: bytes) -> bytes:
    data = encoded("GIF")
    at = 13 + (3 << (data[10] % 8 + 1))
    return data[:at] + blocks + data[at:]


def webp_with(chunks: bytes, canvas: tuple[int, int] = (24, 20)) -> bytes:
    picture = encoded("WEBP")[12:]
    sides = b"".join((side - 1).to_bytes(3, "little") for side in canvas)
    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + bytes(4) + sides + picture + chunks
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bmp_of_runs(width: int, height: int) -> bytes:
    runs = b"\1\0\0\0" * height  # each line ends after one pixel, and is filled value by value
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + 40 + 1024) + head + bytes(1024) + runs


BIG_TIFF = b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, 10**6) + bytes(20) * 1000
REFUSED = {
    "text chunks of a PNG": (png_with(chunk(b"tEXt", b"a\0b") * 200_000), "a PNG with more than 2000 chunks"),
    "text behind the pixels": (png_with(chunk(b"tEXt", b"a\0b") * 5000, True), "a PNG with more than 2000 chunks"),
    "frames of an APNG": (png_with(chunk(b"fcTL", bytes(26)) * 5000), "a PNG with more than 2000 chunks"),
    "pixels in many chunks": (png_with(chunk(b"IDAT", b"") * 10_000), "a PNG with more than 2000 chunks"),
    "EXIF of a PNG": (png_with(chunk(b"eXIf", exif(60_000))), "with 60000 tags, at most 300"),
    "comments of a JPEG": (jpeg_with(segment(0xFE, b"") * 100_000), "more than 2000 segments before its first scan"),
    "filling of a JPEG": (jpeg_with(b"\xff" * 10**6), "more than 2000 segments before its first scan"),
    "EXIF of a JPEG": (jpeg_with(exif_segments(5000)), "with 5000 tags, at most 300"),
    "tags of a TIFF": (exif(60_000), "a TIFF with 60000 tags"),
    "tags of a BigTIFF": (BIG_TIFF, "a TIFF with 1000000 tags"),
    "comments of a GIF": (gif_with(b"!\xfe\x01a\0" * 100_000), "more than 2000 blocks before its picture"),
    "a comment of a GIF": (gif_with(b"!\xfe" + b"\x01a" * 10**6 + b"\0"), "more than 2000 blocks before its picture"),
    "rubbish of a GIF": (gif_with(b"x" * 10**6), "more than 2000 blocks before its picture"),
    "frames of a WebP": (webp_with((b"ANMF" + struct.pack("<I", 16) + bytes(16)) * 5000), "chunks or frames"),
    "canvas of a WebP": (webp_with(b"", (16_000, 16_000)), "16000 x 16000 pixels, the limit is 64,000,000"),
    "EXIF of a WebP": (webp_with(b"EXIF" + struct.pack("<I", len(exif(60_000))) + exif(60_000)), "60000 tags"),
    "runs of a BMP": (bmp_of_runs(8000, 8000), "run lengths and 64,000,000 pixels"),
    "comment of a PPM": (b"P6\n#" + b"x" * 5 * 10**6 + b"\n24 20\n255\n" + bytes(1440), "more than 4096 bytes"),
    "blanks of a PPM": (b"P6\n" + b" " * 10**6 + b"24 20\n255\n" + bytes(1440), "more than 4096 bytes"),
    "comments of a plain PPM": (b"P2 24 20 255 " + b"#\n" * 10**6 + b"1 " * 480, "more than 2000 comments"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_parts_without_end_are_refused_by_their_bytes(tmp_path, name):
    data, says = REFUSED[name]
    assert len(data) < 6_000_000
    with pytest.raises(ImageError, match=says):
        open_picture(data)
    (tmp_path / "picture").write_bytes(data)
    with pytest.raises(ImageError, match=says):
        read_image(tmp_path / "picture")


READ = {
    "a PNG with text": png_with(chunk(b"tEXt", b"a\0b") * 1000),
    "a PNG in small pieces": png_with(chunk(b"tEXt", b"a\0b") * 100, True),
    "a JPEG with comments": jpeg_with(segment(0xFE, b"hello") * 500),
    "a JPEG with EXIF data": jpeg_with(exif_segments(200)),
    "a GIF with comments": gif_with(b"!\xfe\x05hello\0" * 200),
    "a WebP with a canvas": webp_with(b""),
    "a PPM with a comment": b"P6\n# made by a scanner\n24 20\n255\n" + PIXELS.tobytes(),
    "a plain PPM": b"P2 24 20 255 # grey\n" + b"7 " * 480,
    "a BMP of runs": bmp_of_runs(24, 20),
    **{kind: encoded(kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")},
}


@pytest.mark.parametrize("name", READ)
def test_what_encoders_write_is_read(tmp_path, name):
    (tmp_path / "picture").write_bytes(READ[name])
    assert read_image(tmp_path / "picture").shape == (20, 24, 3)


@pytest.mark.parametrize("name", READ)
def test_cut_pictures_are_judged_without_an_error_of_another_kind(name):
    for length in range(0, len(READ[name]), max(1, len(READ[name]) // 200)):
        check_cost(READ[name][:length], 10**6)


@pytest.mark.parametrize("count", [MAX_TAGS, MAX_TAGS + 1])
def test_the_limit_of_tags_is_exact(count):
    if count > MAX_TAGS:
        with pytest.raises(ImageError, match=f"{count} tags"):
            check_cost(exif(count), 10**6)
    else:
        check_cost(exif(count), 10**6)


def test_texts_that_unpack_to_much_more_are_not_unpacked(tmp_path):
    from bounded_parts import bounded

    squeeze = zlib.compressobj(9)
    packed = b"".join(squeeze.compress(bytes(2**20)) for _ in range(200)) + squeeze.flush()
    file = tmp_path / "a.png"
    for name, head in ((b"zTXt", b"a\0\0"), (b"iCCP", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0")):
        file.write_bytes(png_with(chunk(name, head + packed)))
        found = bounded("from acs_core.image import read_image", "read_image(argument).shape", file)
        assert found.grown_mb < 100, found
