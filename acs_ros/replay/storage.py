"""A bag as it comes: mcap or sqlite3, folder or single file, whole or broken, with or without its metadata."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol, cast

from rosbags.interfaces import ConnectionExtRosbag2
from rosbags.rosbag2 import Reader
from rosbags.rosbag2.errors import ReaderError

from acs_ros.bags import BagError
from acs_ros.replay.salvage import Message, SalvagedMcap, SalvagedSqlite, unpacked

STORAGES = {".mcap": "mcap", ".db3": "sqlite3"}
PACKED = (".zstd", ".zst")


class Part(Protocol):
    """Something that messages are read from. ``problem``: why there are no more of them."""

    topics: dict[str, str]
    problem: str

    def messages(self) -> Iterator[Message]:
        """All messages; ends early with ``problem`` where it cannot read on."""

    def close(self) -> None:
        """Let go of the file."""


class Bag:
    """A bag to read; a context manager.

    ``topics`` are names with their types. ``notes`` say what is wrong with the bag, as sentences for its user; reading
    may add one. ``storage``: "mcap" or "sqlite3".

    Raises:
        BagError: there is no bag, or nothing of it can be read; says what to do.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.parent if path.name == "metadata.yaml" else path
        self.notes: list[str] = []
        self._parts: list[Part] = []
        if not self.path.exists():
            raise BagError(f"there is no bag {self.path}")
        files = [self.path] if self.path.is_file() else storage_files(self.path)
        if not files:
            raise BagError(_no_bag(self.path))
        self.storage = STORAGES[_checked_suffix(files[0])]
        try:
            self._open(files)
        except BaseException:
            self.close()
            raise
        self.topics = {name: kind for part in reversed(self._parts) for name, kind in part.topics.items()}

    def __enter__(self) -> Bag:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all files."""
        parts, self._parts = self._parts, []
        for part in parts:
            part.close()

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        """The messages on ``topics`` up to where the bag breaks, file by file, in the order of recording."""
        for part in self._parts:
            last = 0
            for message in part.messages():
                last = message.time_ns
                if message.topic in topics:
                    yield message
            if part.problem:
                where = f"after the message of {last / 1e9:.3f} s" if last else "before its first message"
                self._note(f"the bag is damaged: it breaks {where} ({part.problem}); what comes before is used")
                return

    def _open(self, files: list[Path]) -> None:
        whole_problem = ""
        if self.path.is_dir():
            try:
                self._parts = [_Whole(self.path)]
                return
            except FileNotFoundError:
                whole_problem = "there is no metadata.yaml: the recording was not ended properly, or it was not copied"
            except (ReaderError, OSError, ValueError) as error:
                whole_problem = f"metadata.yaml does not help ({' '.join(str(error).split())})"
        for file in files:
            try:
                self._parts.append(_open_file(file))
            except (ReaderError, OSError) as error:
                why = f"cannot be read ({error}): it is damaged, encrypted, or no rosbag2 file"
                problem = f"{file} {why if file.stat().st_size else 'is empty (0 bytes)'}"
                if not self._parts:
                    raise BagError(problem) from error
                self._note(f"{problem}; the files before it are used")
                break
        if whole_problem and not any(isinstance(part, SalvagedMcap | SalvagedSqlite) for part in self._parts):
            self._note(f"{whole_problem}; its files are read one by one")

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


class _Whole:
    """A bag folder or file that rosbags can open."""

    def __init__(self, path: Path) -> None:
        self.problem = ""
        self._reader = Reader(path)
        try:
            self._reader.open()
        except (ReaderError, OSError):
            raise
        except Exception as error:  # each storage and compression has errors of its own
            raise ReaderError(f"{type(error).__name__}: {error}") from error
        formats = {cast(ConnectionExtRosbag2, c.ext).serialization_format for c in self._reader.connections}
        if formats - {"cdr"}:
            self._reader.close()
            raise BagError(f"{path}: its messages are serialized as {', '.join(sorted(formats))}, not as cdr")
        self.topics = {c.topic: c.msgtype for c in self._reader.connections}

    def messages(self) -> Iterator[Message]:
        """All messages; a damaged place in the middle ends them."""
        found = self._reader.messages(self._reader.connections)
        while True:
            try:
                connection, time_ns, data = next(found)
                message = Message(connection.topic, time_ns, unpacked(data))
            except StopIteration:
                return
            except Exception as error:  # as above
                self.problem = " ".join(f"{type(error).__name__}: {error}".split())
                return
            yield message

    def close(self) -> None:
        """Close the files."""
        self._reader.close()


def _open_file(file: Path) -> Part:
    suffix = _checked_suffix(file)
    if file.suffix in PACKED:
        raise BagError(
            f"{file} is compressed as a whole, and no metadata.yaml that can be read says how: unpack it "
            "(zstd -d FILE) and name what comes out"
        )
    try:
        return _Whole(file)
    except ReaderError:
        return SalvagedMcap(file) if suffix == ".mcap" else SalvagedSqlite(file)


def storage_files(folder: Path) -> list[Path]:
    """The storage files of a bag folder in the order of recording: bag_0, bag_1, ..., bag_10."""

    def order(file: Path) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", file.name)]

    plain = [f for f in folder.iterdir() if f.suffix in STORAGES]
    return sorted(
        plain or [f for f in folder.iterdir() if Path(f.stem).suffix in STORAGES and f.suffix in PACKED], key=order
    )


def _checked_suffix(file: Path) -> str:
    """``.mcap`` or ``.db3``.

    Raises:
        BagError: another file.
    """
    suffix = Path(file.stem).suffix if file.suffix in PACKED else file.suffix
    if suffix in STORAGES:
        return suffix
    if suffix == ".bag":
        raise BagError(f"{file} is a ROS 1 bag: convert it first (rosbags-convert --src {file} --dst NEW_BAG)")
    raise BagError(f"{file} is no rosbag2 file: those end in .mcap or .db3; or name the bag's folder")


def _no_bag(folder: Path) -> str:
    if (folder / "metadata.yaml").is_file():
        return f"{folder} has a metadata.yaml, but no .mcap or .db3 file beside it: copy the whole folder"
    return f"{folder} is no bag: it has neither metadata.yaml nor an .mcap or .db3 file"
