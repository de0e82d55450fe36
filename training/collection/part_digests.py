"""Digests of a store's part: SHA-256 and size of each of its files, in one file that is written last."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from acs_core.artifacts.json_io import Limits
from acs_core.artifacts.sealed import read_sealed, seal
from training.errors import DataError

DIGESTS = "digests.json"
LIMITS = Limits(64 << 20, 5_000_000)  # of the digests' file: a part has a few dozen files, of 80 bytes each in it
WRONG_FILES = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
ADVICE = "delete it and run the command that made it again (`acs-train collect`, `build` or `evaluate`)"


@dataclass(frozen=True)
class Digests:
    """Digests of a part.

    Attributes:
        number: number of the part.
        collection: fingerprint of the collection's manifest; "" without a manifest.
        files: (bytes, SHA-256 in hex) of each file, by its path relative to the part, with slashes.
    """

    number: int
    collection: str
    files: dict[str, tuple[int, str]]


@contextmanager
def errors_as_data_errors(part: Path) -> Iterator[None]:
    """Re-raise any exception of the block as a DataError that names ``part``.

    All exceptions are caught: zarr, numpy and json raise undocumented ones for damaged or forged parts.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
        if isinstance(error, (MemoryError, OSError)) and not isinstance(error, WRONG_FILES):
            raise DataError(f"{part} cannot be read ({problem})") from error  # deleting the part would not help
        raise DataError(f"{part} is damaged ({problem}): {ADVICE}") from error


def write_digests(part: Path, number: int, collection: str) -> None:
    """Write the digests of all files in ``part``."""
    files = {name: [(part / name).stat().st_size, _digest(part / name)] for name in sorted(_names(part))}
    content = seal({"part": number, "collection": collection, "files": files})
    (part / DIGESTS).write_text(json.dumps(content, indent=1) + "\n")


def read_digests(part: Path, collection: str | None = None) -> Digests:
    """Read the digests of ``part`` and check its files' names and sizes against them, and the part's number and
    ``collection`` (unless that is None).

    Raises:
        DataError: a file is missing, unexpected, or of another size; the part belongs elsewhere; or the file of digests
            is damaged.
    """
    with errors_as_data_errors(part):
        data = read_sealed(part / DIGESTS, LIMITS)
        files = {str(name): (int(size), str(digest)) for name, (size, digest) in data["files"].items()}
        found = _names(part) - {DIGESTS}
        if missing := sorted(set(files) - found):
            raise ValueError(f"{missing[0]} is missing")
        if extra := sorted(found - set(files)):
            raise ValueError(f"{extra[0]} does not belong to it")
        for name, (size, _) in files.items():
            if (there := (part / name).stat().st_size) != size:
                raise ValueError(f"{name} has {there} bytes, {size} were written")
        digests = Digests(int(data["part"]), str(data["collection"]), files)
        if digests.number != int(part.name.rpartition("_")[2]):
            raise ValueError(f"it is part {digests.number}, moved here")
        if collection not in (None, digests.collection):
            raise ValueError(f"it is of the collection {digests.collection}, not of {collection}")
        return digests


def verify(part: Path, digests: Digests, wanted: Callable[[str], bool] = lambda name: True) -> None:
    """Compare the SHA-256 of the files ``wanted`` of ``part`` with the digests.

    Raises:
        DataError: the content of a file differs; names the file.
    """
    with errors_as_data_errors(part):
        for name, (_, digest) in digests.files.items():
            if wanted(name) and _digest(part / name) != digest:
                raise ValueError(f"{name} is not what was written: its SHA-256 differs")


def _names(part: Path) -> set[str]:
    found = set()
    for folder, _, files in os.walk(part):
        for name in files:
            file = Path(folder, name)
            if not stat.S_ISREG(file.lstat().st_mode):  # reading a pipe would block; a link may point outside the part
                raise ValueError(f"{file.relative_to(part)} is no regular file")
            found.add(file.relative_to(part).as_posix())
    return found


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
