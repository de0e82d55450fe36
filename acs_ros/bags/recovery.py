"""Readers of mcap files with an index and without; a damaged one gives every message before the place where it breaks.

A recording that was cut off (power, full disk, incomplete copy) has no index and ends with half a record; rosbags
refuses it.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from rosbags.interfaces import Connection, ConnectionExtRosbag2
from rosbags.rosbag2.errors import ReaderError
from rosbags.rosbag2.storage_mcap import ChunkInfo, McapReader, decompress

from acs_ros.bags.unpacking import RECORD, bound_rosbags, count_records, limit_for, unpack_zstd

MAGIC = b"\x89MCAP0\r\n"
MAX_OPEN = 128 * 2**20  # bytes of unpacked chunks that are merged by time
MAX_OPEN_CHUNKS = 8  # rosbags makes an object of each of their messages
CHUNK, FOOTER = 0x06, 0x02
CHUNK_HEAD = struct.Struct("<QQQII")  # first and last time, size, checksum, length of the compression's name
FOOTING = RECORD.pack(FOOTER, 20) + bytes(20) + MAGIC  # a footer without an index
FEWEST_MESSAGES = 500_000
_TOO_MANY = "it holds more messages than any file of its size"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"  # CDR begins with a zero byte, so no message looks like this by chance


class Message(NamedTuple):
    """A message as recorded at ``time_ns``; ``data`` is CDR."""

    topic: str
    time_ns: int
    data: bytes


def whole_part(file: BinaryIO) -> tuple[int, str]:
    """Return the number of bytes from the start of an mcap file that are complete records, and the reason why there are
    no more ("" at a proper end).

    Chunks are unpacked to check that they are complete, and to count their messages.
    """
    size = file.seek(0, io.SEEK_END)
    left = most_messages(size)
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
        if kind == CHUNK:
            records, problem = _count_chunk(file.read(length))
            left -= records
            if problem:
                return at, problem
        if left < 0:
            return at, _TOO_MANY
        at += RECORD.size + length
    return at, "it has no end"


def _count_chunk(record: bytes) -> tuple[int, str]:
    """Return the number of records in a chunk, and the reason why it cannot be unpacked, or ""."""
    try:
        _, _, size, checksum, name_length = CHUNK_HEAD.unpack_from(record)
        name = record[CHUNK_HEAD.size : CHUNK_HEAD.size + name_length].decode()
        return count_records(decompress(record[CHUNK_HEAD.size + name_length + 8 :], name, size, checksum)), ""
    except (ReaderError, struct.error, ValueError) as error:
        return 0, f"a chunk cannot be unpacked ({error})"
    except Exception as error:  # each compression has errors of its own
        return 0, f"a chunk cannot be unpacked ({type(error).__name__}: {error})"


def most_messages(size: int) -> int:
    """Return the largest number of messages accepted from a file of ``size`` bytes: a message takes at least 31 bytes
    before compression."""
    return FEWEST_MESSAGES + 2 * size


class _RepairedFile(io.RawIOBase):
    """File object of the first ``length`` bytes of ``file`` with a footer appended."""

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


class _RepairedPath:
    """Stand-in for a path, with which rosbags opens the file's intact part with a footer."""

    def __init__(self, path: Path, length: int) -> None:
        self._path, self._length = path, length

    def open(self, *_: Any, **__: Any) -> BinaryIO:
        return io.BufferedReader(_RepairedFile(self._path.open("rb"), self._length))


class _McapFile:
    """Topics and messages of an mcap file that rosbags has open. ``problem`` describes the damage once reading has
    reached it."""

    _reader: McapReader
    _size: int  # bytes of the file
    problem: str
    topics: dict[str, str]
    formats: set[str]

    def _read(self, found: Iterator[tuple[Connection, int, bytes]]) -> Iterator[Message]:
        """Yield the messages of ``found``, up to the first that cannot be read, or until there are more than a file of
        this size can hold."""
        left = most_messages(self._size)
        while True:
            try:
                connection, time_ns, data = next(found)
                message = Message(connection.topic, time_ns, unpacked(data))
            except StopIteration:
                return
            except Exception as error:  # each compression has errors of its own
                self.problem = " ".join(f"{type(error).__name__}: {error}".split())
                return
            left -= 1
            if left < 0:
                self.problem = _TOO_MANY
                return
            yield message

    def close(self) -> None:
        """Close the file."""
        if self._reader.bio is not None:
            self._reader.close()


class IndexedMcap(_McapFile):
    """An intact mcap file with its index.

    Raises:
        ReaderError: it is damaged, has no index, or an index that would make reading it more expensive than its size
            implies.
    """

    def __init__(self, path: Path) -> None:
        bound_rosbags()
        self.problem = ""
        self._size = path.stat().st_size
        self._reader = _IndexReader(path)
        try:
            self._reader.open()
            _check_complete(self._reader)
            _check_index(self._reader.chunks, self._size)
            self.topics, self.formats = _topics_of(self._reader)
        except (ReaderError, OSError):
            self.close()
            raise
        except Exception as error:  # for broken indices, unpacking raises various exceptions
            self.close()
            raise ReaderError(f"{type(error).__name__}: {error}") from error

    def messages(self) -> Iterator[Message]:
        """All messages in the order of their times, or, where there are none, in that of the file; a damaged place in
        the middle ends them."""
        begin = min(chunk.message_start_time for chunk in self._reader.chunks)
        end = max(chunk.message_end_time for chunk in self._reader.chunks)
        timed = begin > 0 and begin < end  # or messages of several chunks would come in any order
        return self._read((self._reader.messages if timed else self._reader.messages_scan)(self._reader.connections))


class _IndexReader(McapReader):
    """Reader that requires an index: without one, rosbags would scan the whole file."""

    def meta_scan(self) -> None:
        """Called by rosbags if there is no index."""
        raise ReaderError("it has no index")


def _check_complete(reader: McapReader) -> None:
    """Raises ReaderError where the index leaves out messages: by it rosbags would pass over them in silence."""
    if not reader.chunks:
        raise ReaderError("it has no index of its messages")
    stated = reader.statistics.chunk_count if reader.statistics else len(reader.chunks)
    if stated != len(reader.chunks):
        raise ReaderError(f"its index names {len(reader.chunks)} of {stated} chunks")
    bare = sum(not chunk.message_index_offsets for chunk in reader.chunks)
    if bare:
        raise ReaderError(f"{bare} of {len(reader.chunks)} chunks have no index")


def _check_index(chunks: Collection[ChunkInfo], size: int) -> None:
    """Raise ReaderError if the index refers to the same bytes several times, or makes rosbags, which merges chunks by
    time, hold more than MAX_OPEN_CHUNKS or MAX_OPEN bytes of them at a time."""
    last = 0
    for chunk in sorted(chunks, key=lambda c: c.chunk_start_offset):
        if chunk.chunk_start_offset < last or chunk.compressed_size > chunk.chunk_length:
            raise ReaderError("its index names chunks that overlap")
        last = chunk.chunk_start_offset + chunk.chunk_length
        if chunk.uncompressed_size > limit_for(chunk.compressed_size):
            raise ReaderError(f"a chunk of {chunk.compressed_size:,} bytes is said to unpack to more than any would")
    if last > size:
        raise ReaderError("its index names chunks behind the end of the file")
    begins = [(c.message_start_time, 0, c.uncompressed_size) for c in chunks]
    ends = [(c.message_end_time, 1, -c.uncompressed_size) for c in chunks]
    held = count = 0
    for _, is_end, change in sorted(begins + ends):
        held += change
        count += -1 if is_end else 1
        if count > 1 and (held > MAX_OPEN or count > MAX_OPEN_CHUNKS):
            raise ReaderError(f"{count} chunks of {held >> 20} MiB lie over one another in time")


def _topics_of(reader: McapReader) -> tuple[dict[str, str], set[str]]:
    """Return the names and types of the topics, and the serialization of their messages."""
    formats = {cast(ConnectionExtRosbag2, c.ext).serialization_format for c in reader.connections}
    return {c.topic: c.msgtype for c in reader.connections}, formats


class RecoveredMcap(_McapFile):
    """An mcap file without a usable index, read from its beginning up to where it ends or breaks. ``problem`` says why
    it ends there, "" for the end of a whole file.

    Raises:
        ReaderError: not even its beginning can be read.
    """

    def __init__(self, path: Path) -> None:
        bound_rosbags()
        self._size = path.stat().st_size
        with path.open("rb") as file:
            length, self.problem = whole_part(file)
        if length <= len(MAGIC):
            raise ReaderError(self.problem or "it is empty")
        self._reader = McapReader(_RepairedPath(path, length))  # type: ignore[arg-type]
        try:
            self._reader.open()
        except ReaderError:
            raise
        except Exception as error:  # for broken records, unpacking raises various exceptions
            raise ReaderError(f"{type(error).__name__}: {error}") from error
        self.topics, self.formats = _topics_of(self._reader)

    def messages(self) -> Iterator[Message]:
        """Yield all messages in the order of the file."""
        # Not .messages(): without an index, it refuses files whose messages are not strictly in order of time.
        return self._read(self._reader.messages_scan(self._reader.connections))


def unpacked(data: bytes) -> bytes:
    """Decompress a message that was compressed by itself (``compression_mode: message``); others are returned
    unchanged."""
    return unpack_zstd(data) if data[:4] == ZSTD_MAGIC else data
