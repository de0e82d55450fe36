"""Bag files of kilobytes that would take gigabytes, or never end."""

from __future__ import annotations

import sqlite3
import struct
from pathlib import Path

import lz4.frame

MAGIC = b"\x89MCAP0\r\n"
IMAGE, STRING = "sensor_msgs/msg/Image", "std_msgs/msg/String"
QOS_BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9)
)


def zstd_zeros(size: int) -> bytes:
    """A zstd frame of ``size`` zero bytes: four bytes for each 128 KiB."""
    block, rest = 2**17, size
    blocks = []
    while rest:
        part = min(block, rest)
        rest -= part
        blocks.append((int(rest == 0) | 1 << 1 | part << 3).to_bytes(3, "little") + b"\0")
    return b"\x28\xb5\x2f\xfd\x00\x38" + b"".join(blocks)


def lz4_zeros(size: int) -> bytes:
    """An lz4 frame of ``size`` zero bytes, 1/255 of it."""
    with lz4.frame.LZ4FrameCompressor(block_size=lz4.frame.BLOCKSIZE_MAX4MB) as squeeze:
        parts = [squeeze.begin(), *(squeeze.compress(bytes(2**22)) for _ in range(size >> 22)), squeeze.flush()]
    return b"".join(parts)


def record(kind: int, body: bytes) -> bytes:
    return struct.pack("<BQ", kind, len(body)) + body


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<I", len(raw)) + raw


def schema(name: str = IMAGE) -> bytes:
    return record(3, struct.pack("<H", 1) + text(name) + text("ros2msg") + text(""))


def channel(topic: str = "/camera/image", key: int = 1, qos: str = "") -> bytes:
    facts = text("offered_qos_profiles") + text(qos)
    return record(4, struct.pack("<HH", key, 1) + text(topic) + text("cdr") + text(facts))


def message(data: bytes = b"\0\1\0\0", key: int = 1, at: int = 1) -> bytes:
    return record(5, struct.pack("<HIQQ", key, 0, at, at) + data)


def chunk(packed: bytes, size: int, compression: str = "zstd", times: tuple[int, int] = (0, 10)) -> bytes:
    return record(
        6, struct.pack("<QQQI", *times, size, 0) + text(compression) + struct.pack("<Q", len(packed)) + packed
    )


def entry(offset: int, body: bytes, packed: int, size: int, compression: str = "zstd", times=(0, 10)) -> bytes:
    """The index's record of the chunk ``body`` at ``offset``, which says that it holds channel 1."""
    offsets = struct.pack("<HQ", 1, offset + len(body))
    head = struct.pack("<QQQQ", *times, offset, len(body)) + struct.pack("<I", len(offsets)) + offsets
    return record(8, head + struct.pack("<Q", 31) + text(compression) + struct.pack("<QQ", packed, size))


def mcap(*records: bytes, index: bytes = b"") -> bytes:
    """A file of these records; ``index`` are those of its summary, none: it has none."""
    data = MAGIC + record(1, text("ros2") + text("test")) + b"".join(records) + record(15, bytes(4))
    start = len(data) if index else 0
    return data + index + record(2, struct.pack("<QQI", start, 0, 0)) + MAGIC


def indexed(packed: bytes, size: int, compression: str = "zstd", copies: int = 1, claims: int = 1) -> bytes:
    """A file with ``copies`` of a chunk, each of them ``claims`` times in the index."""
    body = chunk(packed, size, compression)
    first = len(mcap()) - len(record(15, bytes(4))) - len(record(2, bytes(20))) - len(MAGIC) + len(schema() + channel())
    entries = b"".join(
        entry(first + i * len(body), body, len(packed), size, compression) * claims for i in range(copies)
    )
    count = struct.pack("<QHIIIIQQ", 9, 1, 1, 0, 0, copies * claims, 0, 10) + struct.pack("<I", 10)
    statistics = record(11, count + struct.pack("<HQ", 1, 9))
    return mcap(schema(), channel(), body * copies, index=schema() + channel() + entries + statistics)


def database(file: Path, *statements: str, topics: str = "table", messages: str = "table") -> Path:
    """A sqlite3 bag file with its two tables, unless ``statements`` make something else of their names."""
    with sqlite3.connect(file) as made:
        if topics == "table":
            made.execute(
                "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, serialization_format TEXT, "
                "offered_qos_profiles TEXT)"
            )
            made.execute("INSERT INTO topics VALUES(1, '/camera/image', 'sensor_msgs/msg/Image', 'cdr', '')")
        if messages == "table":
            made.execute(
                "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB)"
            )
            made.execute("INSERT INTO messages VALUES(1, 1, 5, x'00010000')")
        for statement in statements:
            made.execute(statement)
    made.close()
    return file
