"""Bounded decompression: stops at the size that a chunk declares, and at a limit that depends on the packed size.

rosbags decompresses without a limit, whatever size a chunk declares. :func:`bound_rosbags` puts the functions of this
module into its table of decompressors, and must be called before bags are opened.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lz4.frame import LZ4FrameDecompressor
from rosbags.rosbag2 import storage_mcap
from rosbags.rosbag2.errors import ReaderError

zstd = storage_mcap.zstd  # the standard library's module or its backport, as rosbags imports it

MAX_UNPACKED = 256 * 2**20  # bytes of a chunk or message: a picture of 64 million pixels has 192 MB
ALWAYS = 32 * 2**20  # bytes: so much may come out of any chunk, such as a black picture
RATIO = 200  # beyond that, this many times the packed size
MAX_RECORDS = 250_000  # of a chunk: recorders end a chunk after 1 to 4 MB
MAX_FILE = 2**30  # bytes: so much may come out of any file that is packed as a whole; beyond that RATIO holds
BLOCK = 2**20  # bytes
RECORD = struct.Struct("<BQ")  # operation code, length of what follows


def limit_for(packed: int) -> int:
    """Return the largest number of bytes that ``packed`` bytes may unpack to."""
    return min(MAX_UNPACKED, max(ALWAYS, RATIO * packed))


def unpack_zstd(data: bytes, size: int | None = None) -> bytes:
    """Decompress ``data`` with zstd, to ``size`` bytes if a size was declared.

    Raises:
        ReaderError: the result would exceed ``size`` or :func:`limit_for`, or ``data`` is not one complete frame.
    """
    return _unpack(zstd.ZstdDecompressor(), data, size)


def unpack_lz4(data: bytes, size: int | None = None) -> bytes:
    """Decompress an lz4 frame as :func:`unpack_zstd` does."""
    return _unpack(LZ4FrameDecompressor(), data, size)


def unpack_file(source: Path, target: Path) -> None:
    """Decompress ``source``, a file compressed with zstd as a whole, to ``target``.

    Raises:
        ReaderError: it is damaged, larger than MAX_FILE and RATIO allow, or does not fit on the disk.
        OSError: a file cannot be read or written.
    """
    limit = max(MAX_FILE, RATIO * source.stat().st_size)
    free = shutil.disk_usage(target.parent).free
    written = 0
    try:
        with zstd.open(source, "rb") as packed, target.open("wb") as out:
            while block := packed.read(BLOCK):
                written += len(block)
                if written > limit:
                    raise ReaderError(f"it unpacks to more than {limit >> 20} MiB, {RATIO} times its size")
                if written > free:
                    raise ReaderError(f"it unpacks to more than the {free >> 20} MiB that are free in {target.parent}")
                out.write(block)
    except (zstd.ZstdError, EOFError) as error:
        raise ReaderError(f"it cannot be unpacked ({error})") from error


def bound_rosbags() -> None:
    """Make rosbags decompress within our limits, and skip the quality-of-service profiles of a bag's topics, which are
    YAML that could expand to any size and are not needed. May be called any number of times."""
    storage_mcap.DECOMPRESSORS.update({"": _as_it_is, "zstd": _checked(unpack_zstd), "lz4": _checked(unpack_lz4)})
    storage_mcap.parse_qos = lambda dcts: []


def _as_it_is(data: bytes, size: int) -> bytes:
    count_records(data)
    return data


def _checked(unpack: Callable[[bytes, int], bytes]) -> Callable[[bytes, int], bytes]:
    def checked(data: bytes, size: int) -> bytes:
        raw = unpack(data, size)
        count_records(raw)
        return raw

    return checked


def count_records(chunk: bytes) -> int:
    """Return the number of records in an unpacked chunk.

    Raises:
        ReaderError: more than MAX_RECORDS, since rosbags creates an object for each.
    """
    at = count = 0
    while at + RECORD.size <= len(chunk):
        at += RECORD.size + RECORD.unpack_from(chunk, at)[1]
        count += 1
        if count > MAX_RECORDS:
            raise ReaderError(f"a chunk holds more than {MAX_RECORDS:,} messages")
    return count


def _unpack(decompressor: Any, data: bytes, size: int | None) -> bytes:
    limit = limit_for(len(data))
    if size is not None and size > limit:
        raise ReaderError(f"{len(data):,} bytes are said to unpack to {size:,}, at most {limit:,} are taken")
    raw: bytes = decompressor.decompress(data, max_length=(limit if size is None else size) + 1)
    if len(raw) > (limit if size is None else size):
        raise ReaderError(f"{len(data):,} bytes unpack to more than the {limit if size is None else size:,} allowed")
    if not decompressor.eof or decompressor.unused_data:
        raise ReaderError(f"{len(data):,} bytes are not one whole compressed frame")
    return raw
