"""Output folders of commands: marked with the command, locked by one process, and updated atomically.

A folder is accepted if it is new or empty. It gets a marker file ``.acs-output.json`` with the command and the size and
SHA-256 of every file that acs wrote. Later runs replace or remove only those files, and only if they are unchanged. All
other files in the folder belong to the user and are kept.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from types import TracebackType

from acs_core.errors import OutputError, os_problem, with_file
from acs_core.output import PART
from acs_core.output_marker import LOCK, MARKER, STAGED, FolderLock, Marker, Swap, WrittenFile, is_staged

SHOWN = 3  # maximum number of names in a message


class OutputFolder:
    """Output folder of a command; a context manager that locks it for this process.

    Args:
        path: the folder.
        command: name of the command, such as "acs-train fit".
        inputs: files and folders that the command reads; none may be the folder or lie in it.
        replaces: patterns of the files that the command will write ("report.html", "frames/*"), so that a conflict with
            a file of the user is found before the work.
        shared_with: other commands that write into the same folder.
        adopts: returns whether the command may add files to a given folder of the user.
        wait: called once before waiting for another process that holds the folder; None to raise an error instead.
    """

    def __init__(
        self,
        path: str | Path,
        command: str,
        *,
        inputs: Iterable[str | Path | None] = (),
        replaces: Sequence[str] = (),
        shared_with: Sequence[str] = (),
        adopts: Callable[[Path], bool] = lambda folder: False,
        wait: Callable[[], None] | None = None,
    ) -> None:
        self.path = Path(path)
        self.command = command
        self._inputs = [Path(given) for given in inputs if given is not None]
        self._replaces, self._commands, self._adopts = replaces, (command, *shared_with), adopts
        self._lock = FolderLock(self.path, command, wait)
        self._marker = Marker(command)

    def __enter__(self) -> OutputFolder:
        """Lock the folder, creating it if missing.

        Raises:
            OutputError: it is a file, holds an input, is neither empty nor marked by one of the commands, is locked by
                another process, or holds a file of the user that matches ``replaces``.
            OSError: it cannot be created or written.
        """
        self.check()  # before anything is put into a folder of the user
        with with_file(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self._lock.take()
        try:
            self._check_owner()  # again, now that the folder is locked
            self._clean_up()
            self._check_replaced()
            self._save(self._marker)
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def check(self) -> None:
        """Checks that the folder may be taken, as entering does, and changes nothing.

        Raises:
            OutputError: as on entering, but for a folder that another process is writing.
        """
        self._check_inputs()
        self._check_owner()
        self._check_replaced()

    def has(self, *patterns: str) -> bool:
        """Return whether an earlier run wrote a file that matches one of ``patterns``, and it is there unchanged."""
        files = self._marker.files.items()
        return any(_matches(name, patterns) and written.is_at(self.path / name) for name, written in files)

    def may_write(self, name: str) -> bool:
        """Return whether ``name`` does not exist, or is an unchanged file that acs wrote."""
        return not self._is_foreign(name)

    @contextmanager
    def stage(self, *replaced: str) -> Iterator[Path]:
        """Yield an empty folder; when the block ends, the files written to it are moved into the output folder.

        Files of earlier runs that match one of the patterns ``replaced`` and were not written again are removed. If the
        block raises, the output folder is unchanged.

        Raises:
            OutputError: a file of the user was created where one of the new files belongs; the new files are kept, and
                the message says where.
            OSError: a file cannot be written.
        """
        staged = self.path / f"{STAGED}{os.getpid()}"
        with with_file(self.path):
            staged.mkdir()
        try:
            with self._named_as_final(staged):
                yield staged
                swap = self._swap_of(staged, replaced)
                self._save(replace(self._marker, swap=swap))
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise
        # The results are complete now: they stay in `staged` until each is moved, even after an error.
        try:
            self._finish(swap)
        except KeyboardInterrupt:
            self._finish(swap)
            raise
        except OSError as error:
            raise OutputError(
                f"{os_problem(error, self.path)}. The new results are whole in {staged}, and the next run of "
                f"`{self.command}` into {self.path} moves them to their places"
            ) from error

    @contextmanager
    def _named_as_final(self, staged: Path) -> Iterator[None]:
        """Replace the name of a staged file in an OSError by its final name."""
        try:
            yield
        except OSError as error:
            name = Path(str(error.filename or staged))
            final = self.path / name.relative_to(staged) if name.is_relative_to(staged) else name
            if error.errno is None or final == name:
                raise
            raise OSError(error.errno, error.strerror, str(final)) from error

    def _swap_of(self, staged: Path, replaced: Sequence[str]) -> Swap:
        """Return the move of all files in ``staged`` to the output folder, after syncing them to the disk."""
        made = {str(file.relative_to(staged)): file for file in _files_below(staged)}
        if foreign := [name for name in made if self._is_foreign(name)]:
            raise OutputError(f"{self._named(foreign)}. What was made now is in {self._keep(staged)}")
        files = {}
        for name, file in made.items():
            with file.open("rb+") as written:
                os.fsync(written.fileno())
            files[name] = WrittenFile.of(file)
        removed = (name for name in self._marker.files if _matches(name, replaced) and name not in made)
        return Swap(staged.name, files, tuple(removed))

    def _finish(self, swap: Swap) -> None:
        """Move the remaining staged files into the output folder and remove the old ones.

        May be called again after an interruption, also by another process.
        """
        staged = self.path / swap.staged
        foreign = []
        for name, written in swap.files.items():
            source, target = staged / name, self.path / name
            if not written.is_at(source):
                continue  # moved already
            if self._is_foreign(name):
                foreign.append(name)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target)
        files = dict(self._marker.files)
        for name in swap.removed:
            if not self._is_foreign(name):
                (self.path / name).unlink(missing_ok=True)
                self._remove_empty((self.path / name).parent)
            files.pop(name, None)
        files |= {name: written for name, written in swap.files.items() if written.is_at(self.path / name)}
        kept = f". What was made is in {self._keep(staged)}" if foreign else ""
        said = self._named(foreign) if foreign else ""
        self._save(replace(self._marker, files=files, swap=None))
        if foreign:
            raise OutputError(said + kept)
        if staged.is_dir() and not staged.is_symlink():
            shutil.rmtree(staged, ignore_errors=True)

    def _keep(self, staged: Path) -> Path:
        """Rename ``staged`` to a name under which the user keeps it, and return that path."""
        name = f"results-{time.strftime('%Y%m%d-%H%M%S')}"
        kept, number = self.path / name, 1
        while os.path.lexists(kept):
            number += 1
            kept = self.path / f"{name}-{number}"
        staged.rename(kept)
        return kept

    def _clean_up(self) -> None:
        """Finish the move of a process that was killed, and remove partially written files."""
        if self._marker.swap is not None:
            self._finish(self._marker.swap)
        for left in self.path.iterdir():
            mode = left.lstat().st_mode
            if is_staged(left.name) and stat.S_ISDIR(mode):
                shutil.rmtree(left)
            elif left.name.startswith(PART) and stat.S_ISREG(mode):
                left.unlink()

    def _save(self, marker: Marker) -> None:
        marker.write(self.path)
        self._marker = marker

    def _remove_empty(self, folder: Path) -> None:
        while folder != self.path:
            try:
                folder.rmdir()
            except OSError:  # not empty
                return
            folder = folder.parent

    def _check_inputs(self) -> None:
        here = self.path.resolve()
        for given in self._inputs:
            if given.resolve() == here:
                raise OutputError(
                    f"{self.path} is read by {self.command} and cannot be its output: name another folder"
                )
            if given.resolve().is_relative_to(here):
                raise OutputError(
                    f"{self.path} holds {given}, which `{self.command}` reads: name an output folder that does not"
                )

    def _check_owner(self) -> None:
        if os.path.lexists(self.path) and not self.path.is_dir():
            raise OutputError(f"{self.path} is not a folder, or a link to none: name another one")
        if not self.path.is_dir():
            return
        with with_file(self.path):
            names = sorted(file.name for file in self.path.iterdir())
        if MARKER in names:
            marker = Marker.read(self.path)
            if marker.command not in self._commands:
                raise OutputError(
                    f"{self.path} was made by `{marker.command}`, not by `{self.command}`: name another folder"
                )
            self._marker = replace(marker, command=self.command)
            return
        # Left by a process that was killed while it locked the folder, or is locking it now.
        ours = LOCK in names
        found = [name for name in names if name != LOCK and not (ours and name.startswith(PART))]
        if found and not self._adopts(self.path):
            raise OutputError(
                f"{self.path} is not empty, and acs did not make it (it has {_some(found)} and no {MARKER}): name a "
                "new or empty folder"
            )

    def _check_replaced(self) -> None:
        names = [str(file.relative_to(self.path)) for file in _files_below(self.path) if self._replaces]
        if foreign := [n for n in names if _matches(n, self._replaces) and self._is_foreign(n)]:
            raise OutputError(self._named(foreign))

    def _is_foreign(self, name: str) -> bool:
        """Return whether ``name`` exists and was not written by acs, or was changed since."""
        file = self.path / name
        above = [self.path / parent for parent in Path(name).parents if parent.name]
        if any(p.is_symlink() or (p.exists() and not p.is_dir()) for p in above):
            return True  # writing there would leave this folder
        if not os.path.lexists(file):
            return False
        swap = self._marker.swap.files if self._marker.swap else {}
        return not any(name in files and files[name].is_at(file) for files in (self._marker.files, swap))

    def _named(self, foreign: Sequence[str]) -> str:
        changed = all(name in self._marker.files for name in foreign)
        what = "changed since acs wrote it" if changed else "not written by acs"
        return (
            f"{self.path} holds {_some(foreign)}, {what}, where {self.command} writes: move that away, or name another "
            "folder"
        )


def _files_below(folder: Path) -> list[Path]:
    """Return the files below ``folder``, sorted, without marker, lock and staged files; links to folders are not
    followed."""
    found = []
    for place, folders, names in os.walk(folder):
        at = Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith(STAGED))
        found += [at / name for name in folders if (at / name).is_symlink()]
        found += [at / name for name in sorted(names) if at != folder or name not in (MARKER, LOCK)]
    return found


def _matches(name: str, patterns: Sequence[str]) -> bool:
    """Return whether ``name`` matches one of ``patterns``, or is a link in place of a folder in one of them."""
    return any(fnmatch(name, pattern) or pattern.startswith(f"{name}/") for pattern in patterns)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
