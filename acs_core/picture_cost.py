"""Limits on the cost of decoding an image, checked on its bytes before a decoder reads them.

A decoder spends time and memory on each part of a file: a chunk of a PNG, a segment or scan of a JPEG, a tag of a TIFF,
a block of a GIF, a comment of a PPM. A file of megabytes can hold millions of parts and a single pixel. Only these
costs are checked here; whether the file is valid otherwise is left to the decoder.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from acs_core.errors import ImageError

MAX_PARTS = 2000  # of a file, besides those with pixels: encoders write a few dozen
PIXEL_PART = 1024  # bytes: MAX_PARTS parts with pixels are allowed, and one more for each PIXEL_PART of the file
MAX_SCANS = 50  # of a JPEG: encoders write about ten
MAX_TAGS = 300  # of a TIFF, and of EXIF data
MAX_PPM_HEADER = 4096  # bytes, comments included
MAX_RUN_LENGTH = 16_000_000  # pixels of a run-length encoded BMP, which Pillow decodes value by value

_TIFF_ORDERS = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}
_EXIF = b"Exif\0\0"


def check_cost(data: bytes, max_pixels: int) -> None:
    """Check the cost of decoding the image file ``data``; its number of pixels is checked after opening it.

    Args:
        data: content of the file.
        max_pixels: maximum number of pixels, checked here for WebP, whose decoder allocates them on opening.

    Raises:
        ImageError: opening or decoding would take far more time or memory than the size suggests; the message says what
            to do.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        _check_png(data)
    elif data.startswith(b"\xff\xd8"):
        _check_jpeg(data)
    elif data[:4] in _TIFF_ORDERS:
        _check_tags(data, "a TIFF")
    elif data[:6] in (b"GIF87a", b"GIF89a"):
        _bound("a GIF", "blocks before its picture", _gif_blocks(data))
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        _check_webp(data, max_pixels)
    elif data.startswith(b"BM"):
        _check_bmp(data)
    elif re.match(rb"P(?:[0-7fF]|y)", data):
        _check_ppm(data)


def _bound(what: str, parts: str, found: Iterator[object]) -> None:
    for count, _ in enumerate(found, start=1):
        if count > MAX_PARTS:
            raise ImageError(f"it is {what} with more than {MAX_PARTS} {parts}: encode it anew")


def _check_png(data: bytes) -> None:
    pixel_parts = others = 0
    at = 8
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name in (b"IDAT", b"fdAT"):
            pixel_parts += 1
        else:
            others += 1
        if others > MAX_PARTS or pixel_parts > MAX_PARTS + len(data) // PIXEL_PART:
            raise ImageError(f"it is a PNG with more than {MAX_PARTS} chunks: encode it anew")
        if name == b"eXIf":
            _check_tags(data[at + 8 : at + 8 + length], "a PNG with EXIF data")
        at += 12 + length


def _check_jpeg(data: bytes) -> None:
    # Each scan costs a pass over the whole image, but only about 30 bytes of the file.
    scans = data.count(b"\xff\xda")
    if scans > MAX_SCANS:
        raise ImageError(f"it is a JPEG with {scans} scans, at most {MAX_SCANS} are taken: encode it anew")
    exif: list[bytes] = []

    def segments() -> Iterator[None]:
        at = 2
        while at + 4 <= len(data):
            yield
            if data[at] != 0xFF or data[at + 1] in (0x00, 0xFF):
                at += 1  # padding and garbage, which Pillow skips byte by byte
                continue
            marker, length = struct.unpack_from(">BH", data, at + 1)
            if marker == 0xDA:  # start of scan: the rest is read by libjpeg
                return
            if 0xD0 <= marker <= 0xD9 or marker == 0x01:  # markers without a segment
                at += 2
                continue
            body = data[at + 4 : at + 2 + length]
            if marker == 0xE1 and body.startswith(_EXIF):
                exif.append(body[len(_EXIF) :])
            at += 2 + length

    _bound("a JPEG", "segments before its first scan", segments())
    _check_tags(b"".join(exif), "a JPEG with EXIF data")


def _check_tags(data: bytes, what: str) -> None:
    """Check the first directory of a TIFF or of EXIF data, the only one that is read."""
    data = data.removeprefix(_EXIF)
    order = _TIFF_ORDERS.get(data[:4])
    if order is None:
        return
    big = b"+" in data[:4]
    try:
        (at,) = struct.unpack_from(f"{order}Q", data, 8) if big else struct.unpack_from(f"{order}I", data, 4)
        (tags,) = struct.unpack_from(f"{order}Q" if big else f"{order}H", data, at)
    except (struct.error, OverflowError):  # truncated, or an impossible offset
        return
    if tags > MAX_TAGS:
        raise ImageError(f"it is {what} with {tags} tags, at most {MAX_TAGS} are taken: encode it anew")


def _gif_blocks(data: bytes) -> Iterator[None]:
    """Yield once for each block that Pillow reads before the first image."""
    if len(data) < 13:
        return
    at = 13 + (3 << (data[10] % 8 + 1) if data[10] & 0x80 else 0)
    while at < len(data) and data[at] not in b",;":
        yield
        if data[at] != 0x21:  # not an extension: Pillow skips it byte by byte
            at += 1
            continue
        at += 2
        while at < len(data) and data[at]:
            yield
            at += 1 + data[at]
        at += 1


def _check_webp(data: bytes, max_pixels: int) -> None:
    def chunks() -> Iterator[None]:
        at = 12
        while at + 8 <= len(data):
            yield
            name, length = struct.unpack_from("<4sI", data, at)
            if name == b"VP8X" and at + 18 <= len(data):  # the decoder allocates the whole canvas on opening
                width, height = (1 + int.from_bytes(data[i : i + 3], "little") for i in (at + 12, at + 15))
                if width * height > max_pixels:
                    raise ImageError(f"it has {width} x {height} pixels, the limit is {max_pixels:,}: scale it down")
            if name == b"EXIF":
                _check_tags(data[at + 8 : at + 8 + length], "a WebP with EXIF data")
            at += 8 + length + length % 2

    _bound("a WebP", "chunks or frames", chunks())


def _check_bmp(data: bytes) -> None:
    if len(data) < 34 or struct.unpack_from("<I", data, 14)[0] < 40:
        return
    width, height, _, _, compression = struct.unpack_from("<iiHHI", data, 18)
    if compression in (1, 2) and abs(width * height) > MAX_RUN_LENGTH:
        raise ImageError(
            f"it is a BMP with run lengths and {abs(width * height):,} pixels, at most {MAX_RUN_LENGTH:,} are taken "
            "so: encode it anew"
        )


def _check_ppm(data: bytes) -> None:
    # Pillow reads headers byte by byte, and copies the rest of a plain file for each comment among its values.
    head = re.sub(rb"#[^\r\n]*[\r\n]?", b" ", data[:MAX_PPM_HEADER]).split()
    needed = 3 if data[:2] in (b"P1", b"P4") else 4  # magic, width, height, largest value
    if len(data) > MAX_PPM_HEADER and len(head) < needed:
        raise ImageError(f"it is a PPM with a header of more than {MAX_PPM_HEADER} bytes: shorten its comments")
    if data[:2] in (b"P1", b"P2", b"P3") and data.count(b"#") > MAX_PARTS:
        raise ImageError(f"it is a PPM with more than {MAX_PARTS} comments: encode it anew")
