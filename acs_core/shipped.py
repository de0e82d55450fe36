"""Whether the files that ship with acs are the ones that were checked in: SHA-256 sums beside them.

``python -m acs_core.shipped`` writes the sums anew after the files were changed on purpose; ``sha256sum -c SHA256SUMS``
in the folder checks them too.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

from acs_core.errors import ModelError

SUMS = "SHA256SUMS"


def check_shipped(path: Path, root: Path) -> None:
    """Makes sure that the file ``path``, or every file of the folder ``path``, is as it was shipped. Nothing is checked
    outside ``root``, or where ``root`` has no sums.

    Raises:
        ModelError: a file is changed, missing, or was not there when the sums were written.
    """
    place, root = path.resolve(), root.resolve()
    if not place.is_relative_to(root) or not (root / SUMS).is_file():
        return
    known = {root / name: digest for name, digest in read_sums(root).items()}
    wanted = {file for file in known if file == place or file.is_relative_to(place)}
    for file in sorted(wanted | set(_files(place))):
        if file not in known:
            problem = "was not shipped with acs"
        elif not file.is_file():
            problem = "is missing"
        elif digest_of(file) != known[file]:
            problem = "is not the one that was shipped with acs"
        else:
            continue
        raise ModelError(
            f"{file} {problem}: install acs again, or run `python -m acs_core.shipped` where that was on purpose"
        )


def read_sums(root: Path) -> dict[str, str]:
    """Name below ``root`` -> SHA-256 in hex.

    Raises:
        ModelError: the sums cannot be read.
    """
    found = {}
    try:
        for line in (root / SUMS).read_text(encoding="utf-8").splitlines():
            digest, name = line.split("  ", 1)
            found[name] = digest
    except (OSError, ValueError) as error:
        raise ModelError(f"{root / SUMS} cannot be read ({error}): install acs again") from error
    return found


def write_sums(root: Path) -> int:
    """Writes the sums of all files below ``root``; how many there are."""
    files = sorted(_files(root))
    lines = [f"{digest_of(file)}  {file.relative_to(root).as_posix()}\n" for file in files]
    (root / SUMS).write_text("".join(lines), encoding="utf-8")
    return len(files)


def digest_of(file: Path) -> str:
    """The SHA-256 of a file in hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _files(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
    for file in place.rglob("*") if place.is_dir() else ():
        if file.is_file() and file.name != SUMS:
            yield file


if __name__ == "__main__":
    from acs_core.assets import ASSETS

    print(f"{ASSETS / SUMS}: {write_sums(ASSETS)} files")
    sys.exit(0)
