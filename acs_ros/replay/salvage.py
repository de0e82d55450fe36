"""What can still be read of a damaged bag file: every message before the place where it breaks.

A recording that was cut off (power, full disk, a copy that ended early) has no index and, as mcap, half a record at its
end; as sqlite3 it lacks its last pages. rosbags refuses both.
"""

from __future__ import annotations

import io
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from rosbags.rosbag2.errors import ReaderError
from rosbags.rosbag2.storage_mcap import DECOMPRESSORS, McapReader, decompress

MAGIC = b"\x89MCAP0\r\n"
CHUNK, FOOTER = 0x06, 0x02
RECORD = struct.Struct("<BQ")  # operation code, length of what follows
CHUNK_HEAD = struct.Struct("<QQQII")  # first and last time, size, checksum, length of the compression's name
FOOTING = RECORD.pack(FOOTER, 20) + bytes(20) + MAGIC  # says that there is no index
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"  # CDR begins with a zero byte, so no message looks like this by chance


class Message(NamedTuple):
    """A message as it was recorded at ``time_ns``; ``data`` is CDR."""

    topic: str
    time_ns: int
    data: bytes


def whole_part(file: BinaryIO) -> tuple[int, str]:
    """How many bytes from the start of an mcap file are whole records, and why it is not more ("" at a proper end).

    Chunks are unpacked to see whether they are whole.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if file.read(len(MAGIC)) != MAGIC:
        return 0, "it does not begin like an mcap file"
    at = len(MAGIC)
    while at < size:
        file.seek(at)
        head = file.read(RECORD.size)
        if len(head) < RECORD.size:
            return at, "it ends within a record"
        kind, length = RECORD.unpack(head)
        if kind == FOOTER:
            return at, ""
        if at + RECORD.size + length > size:
            return at, "it ends within a record"
        if kind == CHUNK and (problem := _chunk_problem(file.read(length))):
            return at, problem
        at += RECORD.size + length
    return at, "it has no end"


def _chunk_problem(record: bytes) -> str:
    try:
        _, _, size, checksum, name_length = CHUNK_HEAD.unpack_from(record)
        name = record[CHUNK_HEAD.size : CHUNK_HEAD.size + name_length].decode()
        decompress(record[CHUNK_HEAD.size + name_length + 8 :], name, size, checksum)
    except (ReaderError, struct.error, ValueError) as error:
        return f"a chunk cannot be unpacked ({error})"
    except Exception as error:  # each compression has errors of its own
        return f"a chunk cannot be unpacked ({type(error).__name__}: {error})"
    return ""


class _Mended(io.RawIOBase):
    """The first ``length`` bytes of ``file`` with a footer behind them."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self._file, self._length, self._at = file, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length + len(FOOTING)}[whence]
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = len(buffer)
        if self._at < self._length:
            self._file.seek(self._at)
            data = self._file.read(min(wanted, self._length - self._at))
        else:
            start = self._at - self._length
            data = FOOTING[start : start + wanted]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


class _MendedPath:
    """What rosbags opens instead of the file."""

    def __init__(self, path: Path, length: int) -> None:
        self._path, self._length = path, length

    def open(self, *_: Any, **__: Any) -> BinaryIO:
        return io.BufferedReader(_Mended(self._path.open("rb"), self._length))


class SalvagedMcap:
    """A damaged mcap file. ``problem`` says why it ends where it does.

    Raises:
        ReaderError: not even its beginning can be read.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            length, self.problem = whole_part(file)
        if length <= len(MAGIC):
            raise ReaderError(self.problem or "it is empty")
        self._reader = McapReader(_MendedPath(path, length))  # type: ignore[arg-type]
        self._reader.open()
        self.topics = {c.topic: c.msgtype for c in self._reader.connections}

    def messages(self) -> Iterator[Message]:
        """All messages in the order of the file."""
        # Not .messages(): without an index that refuses files whose messages are not strictly in order of time.
        for connection, time_ns, data in self._reader.messages_scan(self._reader.connections):
            yield Message(connection.topic, time_ns, unpacked(data))

    def close(self) -> None:
        """Close the file."""
        self._reader.close()


class SalvagedSqlite:
    """A damaged sqlite3 file. ``problem`` says where it broke, once :meth:`messages` has come to that place.

    Raises:
        ReaderError: not even its list of topics can be read.
    """

    def __init__(self, path: Path) -> None:
        self.problem = ""
        self._database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            # Otherwise SQLite refuses any file that is shorter than its header says. Nothing is written.
            self._database.execute("PRAGMA writable_schema=ON")
            rows = self._database.execute("SELECT id, name, type FROM topics").fetchall()
        except (sqlite3.Error, OverflowError) as error:
            self._database.close()
            raise ReaderError(str(error)) from error
        self._names = {key: name for key, name, _ in rows}
        self.topics = {name: msgtype for _, name, msgtype in rows}

    def messages(self) -> Iterator[Message]:
        """All messages in the order they were written, up to the first that cannot be read."""
        try:
            # By id: the index over the times usually lies behind the place where the file breaks.
            rows = self._database.execute("SELECT topic_id, timestamp, data FROM messages ORDER BY id")
            for topic, time_ns, data in rows:
                if topic in self._names:
                    yield Message(self._names[topic], time_ns, unpacked(data))
        except sqlite3.Error as error:
            self.problem = str(error)

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def unpacked(data: bytes) -> bytes:
    """A message that was compressed by itself (``compression_mode: message``) as it was before; others as they are."""
    return DECOMPRESSORS["zstd"](data, 0) if data[:4] == ZSTD_MAGIC else data
