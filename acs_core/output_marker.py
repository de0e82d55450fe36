"""Marker and lock of an output folder: which files acs wrote, and which process writes."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import socket
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from acs_core.artifacts.json_io import Limits, read_object
from acs_core.errors import OutputError, with_file
from acs_core.output import JSON_KEY, json_text, write_text

MARKER, LOCK, STAGED = ".acs-output.json", ".acs-lock", ".acs-staged-"
SCHEMA_VERSION = 1
# The marker of a rendered world of a million images takes 150 MB.
LIMITS = Limits(512 * 2**20, 10_000_000)
NOTE = "Made by acs, which replaces the files below and leaves all others. Delete this file to keep all."
_HOLDER = re.compile(r"[^\n]{1,200} \(process \d+ on [^\n]{1,255}, since [^\n]{1,40}\)\n")
# Without following links or blocking on pipes.
_OPEN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@dataclass(frozen=True)
class WrittenFile:
    """Size, modification time and SHA-256 of a file when acs wrote it.

    An equal ``mtime_ns`` avoids reading the file again; otherwise ``sha256`` decides.
    """

    size: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, file: Path) -> WrittenFile:
        """Return the current state of ``file``."""
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        status = file.stat()
        return cls(status.st_size, status.st_mtime_ns, digest)

    @classmethod
    def from_json(cls, entry: Any) -> WrittenFile:
        """Return the state in an entry of a marker.

        Raises:
            ValueError: the entry is malformed.
        """
        match entry:
            case [int(size), int(mtime), str(digest)] if re.fullmatch("[0-9a-f]{64}", digest):
                return cls(size, mtime, digest)
        raise ValueError("an entry is not [size, mtime in ns, SHA-256]")

    def is_at(self, file: Path) -> bool:
        """Return whether ``file`` is a regular file with the content that acs wrote."""
        try:
            status = file.lstat()
        except OSError:
            return False
        if not stat.S_ISREG(status.st_mode) or status.st_size != self.size:
            return False
        return status.st_mtime_ns == self.mtime_ns or WrittenFile.of(file).sha256 == self.sha256


@dataclass(frozen=True)
class Swap:
    """Pending move of new files into the output folder.

    Attributes:
        staged: name of the folder that holds them.
        files: state of each new file, by name.
        removed: names of old files to remove.
    """

    staged: str
    files: Mapping[str, WrittenFile]
    removed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Marker:
    """Contents of the marker file of an output folder.

    Attributes:
        command: the command that made the folder.
        files: state of each file that acs wrote, by path below the folder.
        swap: a move that is not finished; None without one.
    """

    command: str
    files: Mapping[str, WrittenFile] = field(default_factory=dict)
    swap: Swap | None = None

    @classmethod
    def read(cls, folder: Path) -> Marker:
        """Read the marker of ``folder``.

        Raises:
            OutputError: it is damaged, or was not written by acs.
        """
        file = folder / MARKER
        try:
            if file.is_symlink():
                raise ValueError("it is a link")
            data = read_object(file, SCHEMA_VERSION, LIMITS)
            command, swap = data[JSON_KEY], data.get("swap")
            if not isinstance(command, str):
                raise ValueError(f'"{JSON_KEY}" is no text')
            found = Swap(swap["staged"], _entries(swap["files"]), tuple(_names(swap["removed"]))) if swap else None
            if found and not is_staged(found.staged):
                raise ValueError("its staged folder has a name that acs does not give")
            return cls(command, _entries(data["files"]), found)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise OutputError(f"{file} cannot be read ({error}): name another folder, or move this one away") from error

    def write(self, folder: Path) -> None:
        """Replace the marker of ``folder``.

        Raises:
            OSError: it cannot be written.
        """
        swap = self.swap
        data = {
            "schema_version": SCHEMA_VERSION,
            "note": NOTE,
            "swap": swap and {"staged": swap.staged, "files": _as_json(swap.files), "removed": list(swap.removed)},
            "files": _as_json(self.files),
        }
        write_text(folder / MARKER, json_text(data, self.command))


def is_staged(name: str) -> bool:
    """Return whether ``name`` is that of a folder of staged results."""
    return re.fullmatch(re.escape(STAGED) + r"\d+", name) is not None


class FolderLock:
    """Lock file ``.acs-lock`` of an output folder, which names the process that holds it.

    Args:
        folder: the output folder.
        command: name of the command.
        wait: called before waiting for another process; None to raise an error instead.
    """

    def __init__(self, folder: Path, command: str, wait: Callable[[], None] | None) -> None:
        self._folder, self._command, self._wait = folder, command, wait
        self._handle: int | None = None

    def take(self) -> None:
        """Acquire the lock.

        Raises:
            OutputError: another process holds it and there is no ``wait``, the file system has no locks, or
                ``.acs-lock`` is a file of the user.
            OSError: the lock file cannot be created.
        """
        file = self._folder / LOCK
        while True:
            try:
                with with_file(file):
                    self._handle = os.open(file, _OPEN, 0o666)
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                raise OutputError(_not_ours(file)) from error
            try:
                self._lock()
                held, there = os.fstat(self._handle), file.lstat()
            except FileNotFoundError:  # removed meanwhile: try again with a new file
                self.release()
                continue
            except BaseException:
                self.release()
                raise
            if held.st_ino == there.st_ino:
                break
            self.release()
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        text = f"{self._command} (process {os.getpid()} on {socket.gethostname()}, since {started})\n"
        with with_file(file):
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, text.encode(), 0)

    def release(self) -> None:
        """Release the lock; the lock file is kept."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _lock(self) -> None:
        handle = self._handle
        if handle is None:
            raise ValueError("the lock is not open")
        file = self._folder / LOCK
        status = os.fstat(handle)
        text = os.pread(handle, 1000, 0).decode("utf-8", "replace") if stat.S_ISREG(status.st_mode) else "?"
        if status.st_nlink != 1 or (text and not _HOLDER.fullmatch(text)):
            raise OutputError(_not_ours(file))
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if self._wait is None:
                holder = text.strip() or "another process"
                raise OutputError(
                    f"{self._folder} is being written by {holder}: wait until it has ended, or name another folder"
                ) from None
            self._wait()
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            raise OutputError(
                f"{self._folder} is on a file system without locks ({error.strerror}): name a folder on another one"
            ) from error


def _not_ours(lock: Path) -> str:
    return f"{lock} is not a lock of acs: name another folder, or move that file away"


def _entries(data: Mapping[str, Any]) -> dict[str, WrittenFile]:
    return {name: WrittenFile.from_json(data[name]) for name in _names(data)}


def _names(names: Any) -> list[str]:
    """Return ``names`` after checking that each stays in the folder.

    Raises:
        ValueError: a name leads out of the folder, or is that of the marker or the lock.
    """
    for name in names:
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\0" in name or parts[0] in (MARKER, LOCK):
            raise ValueError(f"it names {name[:100]!r}, which is no file of this folder")
    return list(names)


def _as_json(files: Mapping[str, WrittenFile]) -> dict[str, list[int | str]]:
    return {name: [f.size, f.mtime_ns, f.sha256] for name, f in sorted(files.items())}
