"""Reader of bags: mcap or sqlite3, a folder or a single file, intact or damaged, with or without metadata.yaml."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Protocol

import yaml
from rosbags.rosbag2.errors import ReaderError

from acs_core.artifacts.json_io import Limits, read_bytes
from acs_core.plain_text import join_some, one_line, shorten
from acs_ros.bags.recovery import IndexedMcap, Message, RecoveredMcap
from acs_ros.bags.sqlite_file import SqliteFile
from acs_ros.bags.unpacking import unpack_file
from acs_ros.errors import BagError

METADATA = "metadata.yaml"
NEWEST = 9  # version of metadata.yaml
METADATA_LIMITS = Limits(8 * 2**20, 400_000)  # of 10,000 topics with their quality-of-service profiles
MAX_DEPTH = 50
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MODES = ("", "none", "message", "file")
STORAGES = {".mcap": "mcap", ".db3": "sqlite3"}
PACKED = (".zstd", ".zst")
MAX_NAME = 1000  # characters of a topic's name or type
MAX_TOPICS = 10_000
MAX_WHY = 300  # characters of a library's message


@dataclass(frozen=True)
class Listing:
    """Storage ``files`` of a bag in the order of recording; ``packed`` tells whether each is compressed as a whole."""

    files: tuple[Path, ...]
    packed: bool


def read_listing(folder: Path) -> Listing:
    """Read the metadata.yaml of ``folder``.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it cannot be read, or lists missing files; the message describes the problem.
        BagError: the messages are not CDR.
    """
    if not (folder / METADATA).exists():
        raise FileNotFoundError(folder / METADATA)
    try:
        content = _load_yaml(read_bytes(folder / METADATA, METADATA_LIMITS).decode())["rosbag2_bagfile_information"]
        if content["version"] > NEWEST:
            raise ValueError(f"version {shorten(content['version'])} is not known, at most {NEWEST} is")
        names = [PurePath(name).name for name in content["relative_file_paths"]]
        formats = {str(t["topic_metadata"]["serialization_format"]) for t in content["topics_with_message_count"]}
        mode = (content.get("compression_mode") or "").lower()
        packing = content.get("compression_format") or "zstd"
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"it is not YAML: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a field is missing or wrong: {type(error).__name__} {error}") from error
    if formats - {"cdr"}:
        raise BagError(f"{folder}: its messages are serialized as {join_some(sorted(formats))}, not as cdr")
    if mode not in MODES or (mode not in ("", "none") and packing != "zstd"):
        raise ValueError(f"compression {shorten(mode)} with {shorten(packing)} is not known")
    files = tuple(folder / name for name in dict.fromkeys(names))
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise ValueError(f"it lists files that are not there: {join_some(missing)}" if missing else "it lists no files")
    return Listing(files, mode == "file")


def _load_yaml(text: str) -> Mapping[str, Any]:
    """Parse YAML without aliases, with which a few lines can expand to billions of values."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=LOADER)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it uses YAML aliases, which no recorder writes")
        if depth > MAX_DEPTH or count > METADATA_LIMITS.max_values:
            raise ValueError(f"it holds more than {METADATA_LIMITS.max_values:,} values, or {MAX_DEPTH} in one another")
    loader = LOADER(text)  # a safe loader: it builds plain values alone
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


class MessageSource(Protocol):
    """Interface of a storage file with messages. ``problem`` is the reason why reading ended early, or ""."""

    topics: dict[str, str]
    problem: str

    def messages(self) -> Iterator[Message]:
        """Yield all messages; at damage, ends early and sets ``problem``."""

    def close(self) -> None:
        """Close the file."""


class Bag:
    """A bag to read; a context manager.

    ``topics`` are names with their types. ``notes`` say what is wrong with the bag, as sentences for its user; reading
    may add one. ``incomplete``: some of the notes mean that messages may be missing. ``storage``: "mcap" or "sqlite3".

    Raises:
        BagError: there is no bag, or nothing of it can be read; the message says what to do.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.parent if path.name == "metadata.yaml" else path
        self.notes: list[str] = []
        self.incomplete = False
        self._parts: list[MessageSource] = []
        self._unpacked: TemporaryDirectory[str] | None = None
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
        longest = max((max(len(name), len(kind)) for name, kind in self.topics.items()), default=0)
        if longest > MAX_NAME or len(self.topics) > MAX_TOPICS:
            self.close()
            raise BagError(
                f"{self.path} has {len(self.topics):,} topics and a name of {longest:,} characters; at most "
                f"{MAX_TOPICS:,} topics with names of {MAX_NAME:,} are read"
            )

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
        if self._unpacked is not None:
            self._unpacked.cleanup()

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        """Yield the messages on ``topics`` up to the damage in the bag, if any, file by file, in the order of
        recording."""
        for part in self._parts:
            last: int | None = None
            for message in part.messages():
                last = message.time_ns
                if message.topic in topics:
                    yield message
            if part.problem:
                where = f"after the message of {last / 1e9:.3f} s" if last is not None else "before its first message"
                self._note(f"the bag is damaged: it breaks {where} ({part.problem}); what comes before is used")
                return

    def _open(self, files: list[Path]) -> None:
        whole_problem = no_metadata = ""
        if self.path.is_dir():
            try:
                listing = read_listing(self.path)
                files = self._unpack(listing.files) if listing.packed else list(listing.files)
            except FileNotFoundError:
                no_metadata = "there is no metadata.yaml: the recording was not ended properly, or it was not copied"
            except (ReaderError, ValueError) as error:
                whole_problem = f"metadata.yaml does not help ({one_line(str(error), MAX_WHY)})"
        for file in files:
            try:
                self._parts.append(_open_file(file))
            except (ReaderError, OSError) as error:
                why = one_line(str(error), MAX_WHY)
                why = f"cannot be read ({why}): it is damaged, encrypted, or no rosbag2 file"
                problem = f"{file} {why if file.stat().st_size else 'is empty (0 bytes)'}"
                if not self._parts:
                    raise BagError(problem) from error
                self._note(f"{problem}; the files before it are used")
                break
        for part, file in zip(self._parts, files, strict=False):
            if isinstance(part, RecoveredMcap) and not part.problem:
                self._note(f"{file.name} has no index that could be used: it is read from end to end", complete=True)
        if whole_problem or (no_metadata and not any(isinstance(p, RecoveredMcap) and p.problem for p in self._parts)):
            self._note(f"{whole_problem or no_metadata}; its files are read one by one")

    def _unpack(self, files: Sequence[Path]) -> list[Path]:
        """Unpack files that were compressed as a whole into a folder that :meth:`close` removes; returns their
        paths."""
        self._unpacked = TemporaryDirectory(prefix="acs-bag-")
        found = []
        for number, file in enumerate(files):
            found.append(Path(self._unpacked.name) / f"{number}-{file.stem if file.suffix in PACKED else file.name}")
            try:
                unpack_file(file, found[-1])
            except ReaderError as error:
                raise BagError(f"{file}: {error}") from error
        return found

    def _note(self, text: str, complete: bool = False) -> None:
        self.incomplete = self.incomplete or not complete
        text = one_line(text)
        if text not in self.notes:
            self.notes.append(text)


def _open_file(file: Path) -> MessageSource:
    suffix = _checked_suffix(file)
    if file.suffix in PACKED:
        raise BagError(
            f"{file} is compressed as a whole, and no metadata.yaml that can be read says how: unpack it "
            "(zstd -d FILE) and name what comes out"
        )
    if suffix == ".db3":
        return SqliteFile(file)
    found: IndexedMcap | RecoveredMcap
    try:
        found = IndexedMcap(file)
    except ReaderError:
        found = RecoveredMcap(file)
    if found.formats - {"cdr"}:
        found.close()
        raise BagError(f"{file}: its messages are serialized as {join_some(sorted(found.formats))}, not as cdr")
    return found


def storage_files(folder: Path) -> list[Path]:
    """Return the storage files of a bag folder in the order of recording: bag_0, bag_1, ..., bag_10."""

    def order(file: Path) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", file.name)]

    plain = [f for f in folder.iterdir() if f.suffix in STORAGES]
    return sorted(
        plain or [f for f in folder.iterdir() if Path(f.stem).suffix in STORAGES and f.suffix in PACKED], key=order
    )


def _checked_suffix(file: Path) -> str:
    """Return ``.mcap`` or ``.db3``.

    Raises:
        BagError: the file has another suffix.
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
