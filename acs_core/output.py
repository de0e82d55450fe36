"""Output files: written atomically, and only over files that acs wrote itself.

A file that the user names (``--json``, ``--out``) may already exist. It is replaced only if a mark in it says that an
acs command wrote it, and, where the mark has a SHA-256, if the content still has it; :func:`check_target` checks that
before the work begins. For folders see :mod:`acs_core.output_folder`.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acs_core.errors import OutputError, with_file

if TYPE_CHECKING:
    import numpy as np

JSON_KEY = "written_by"  # the first key of every JSON file
PART = ".acs-part-"  # prefix of files that are being written
HEAD_BYTES = 4096  # the mark of a text file is within these first bytes
_TEXT_MARKS = (
    re.compile(rb'\A\s*\{\s*"' + JSON_KEY.encode() + rb'":\s*"(acs-[ a-z-]+)"'),
    re.compile(rb'<meta name="generator" content="(acs-[ a-z-]+)">'),
    re.compile(rb"\A<!-- written by (acs-[ a-z-]+) -->\n"),  # Markdown
    re.compile(rb"\A# written by (acs-node)\n"),  # the log of a node, which grows while it runs and so has no digest
    re.compile(rb"\A# written by (acs-[ a-z-]+), sha256 ([0-9a-f]{64})\n"),  # see sealed_text
)
_PICTURES = (".png", ".jpg", ".jpeg", ".webp")


@contextmanager
def replaced(file: str | Path, guarded: bool = False) -> Iterator[Path]:
    """Yield a path beside ``file`` to write to, and move it to ``file`` when the block ends.

    If the block raises, ``file`` is unchanged and nothing is left beside it. Symbolic links are followed. If ``file``
    is not a regular file (``/dev/stdout``, a pipe), it is yielded itself, since it cannot be replaced.

    Args:
        file: the output file.
        guarded: whether to keep a file of the user that was created there meanwhile; the new file then stays beside it.

    Raises:
        OSError: the file cannot be written; ``filename`` is ``file``.
        OutputError: ``file`` is a symbolic link that leads back to itself; or ``guarded``, and there is a file of the
            user, and the message names the new file.
    """
    file = Path(file)
    if file.exists() and not file.is_file() and not file.is_dir():
        with with_file(file):
            yield file
        return
    target = _resolved(file) if file.is_symlink() else file
    with with_file(file):
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
        beside = target.with_name(f"{PART}{secrets.token_hex(6)}-{target.stem[:40]}{target.suffix}")
        os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        try:
            yield beside
            if target.exists():
                beside.chmod(target.stat().st_mode & 0o777)
            with beside.open("rb+") as written:
                os.fsync(written.fileno())
            if guarded and _is_foreign(target):
                kept = _free_name(target)
                beside.rename(kept)
                when = "changed" if _is_changed(target) else "created"
                raise OutputError(f"{file} was {when} meanwhile, and acs did not write it: the new file is {kept}")
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)


def write_text(file: str | Path, text: str, guarded: bool = False) -> None:
    """Write ``text`` as UTF-8, atomically; ``guarded`` and errors are those of :func:`replaced`."""
    with replaced(file, guarded) as beside:
        beside.write_text(text, encoding="utf-8")


def write_bytes(file: str | Path, content: bytes, guarded: bool = False) -> None:
    """Write ``content`` atomically; ``guarded`` and errors are those of :func:`replaced`."""
    with replaced(file, guarded) as beside:
        beside.write_bytes(content)


def json_text(data: Mapping[str, Any], command: str) -> str:
    """Return ``data`` as JSON text whose first key marks it as written by ``command`` (such as "acs-ground")."""
    return json.dumps({JSON_KEY: command, **data}, indent=1, ensure_ascii=False) + "\n"


def sealed_text(text: str, command: str) -> str:
    """Return ``text`` after a line that marks it as written by ``command`` and has the SHA-256 of ``text``. A file with
    such a mark is not replaced once it was edited. For formats with comments of ``#``."""
    return f"# written by {command}, sha256 {_digest(text.encode())}\n{text}"


def marked_markdown(text: str, command: str) -> str:
    """Return Markdown ``text`` after a comment that marks it as written by ``command`` (such as "acs-bench")."""
    return f"<!-- written by {command} -->\n{text}"


def write_json(file: str | Path, data: Mapping[str, Any], command: str) -> None:
    """Write ``data`` as JSON with the mark of ``command`` (such as "acs-ground"), not over a file of the user.

    Raises:
        OSError, OutputError: as for :func:`replaced` with ``guarded``.
    """
    write_text(file, json_text(data, command), guarded=True)


def write_picture(file: str | Path, pixels: np.ndarray, command: str) -> None:
    """Write an image in the format of the file's extension, with the mark of ``command``, not over a file of the user.

    Args:
        file: the output file.
        pixels: (H, W, 3) uint8 RGB.
        command: name of the command, such as "acs-ground".

    Raises:
        OSError, OutputError: as for :func:`replaced` with ``guarded``.
        ValueError: the extension is not that of an image format.
    """
    from PIL import Image, PngImagePlugin

    file, picture = Path(file), Image.fromarray(pixels)
    suffix = file.suffix.lower()
    more: dict[str, Any] = {}
    if suffix == ".png":
        more["pnginfo"] = PngImagePlugin.PngInfo()
        more["pnginfo"].add_text("Software", command)
    elif suffix in (".jpg", ".jpeg"):
        more = {"comment": command.encode(), "quality": 92}
    elif suffix == ".webp":
        exif = Image.Exif()
        exif[_SOFTWARE] = command
        more["exif"] = exif
    kind = Image.registered_extensions().get(suffix)
    if kind is None:
        raise ValueError(f"{file}: {suffix or 'no ending'} is no picture format; name a .png file")
    buffer = io.BytesIO()  # in memory first: Pillow hides the system's error message if the disk is full
    picture.save(buffer, kind, **more)
    write_bytes(file, buffer.getvalue(), guarded=True)


def written_by(file: Path) -> str | None:
    """Return the acs command that wrote ``file`` according to its mark; None for other files."""
    try:
        with file.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    except OSError:
        return None
    for mark in _TEXT_MARKS:
        if found := mark.search(head):
            return found[1].decode()
    if file.suffix.lower() in _PICTURES:
        return _picture_mark(file)
    return None


def check_target(file: Path, inputs: Iterable[Path] = ()) -> None:
    """Check, before the work begins, that a command may write ``file``.

    Args:
        file: the output file.
        inputs: files that the command reads.

    Raises:
        OutputError: its folder does not exist or takes no files, it is a folder or one of the inputs, or it exists and
            acs did not write it, or it was edited since.
    """
    if not file.parent.is_dir():
        raise OutputError(f"the folder {file.parent} does not exist")
    if file.is_dir():
        raise OutputError(f"{file} is a folder: name a file")
    if file.exists() and not file.is_file():  # a device
        return
    _check_folder(file)
    if not file.exists():
        return
    if any(given.exists() and file.samefile(given) for given in inputs):
        raise OutputError(f"{file} is read by this command and would be overwritten: name another file")
    if _is_changed(file):
        raise OutputError(f"{file} was changed since acs wrote it: name another file, or move that one away")
    if _is_foreign(file):
        raise OutputError(f"{file} exists, and acs did not write it: name another file, or move that one away")


def _check_folder(file: Path) -> None:
    """Raise OutputError if no file can be created in the folder of ``file``. Permissions alone do not tell: a file
    system can be read-only, or hold no files of users, as /proc."""
    folder = _resolved(file).parent  # of the file that a symbolic link leads to
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"{file} cannot be written: {folder} takes no new files ({error.strerror})") from error


def _resolved(file: Path) -> Path:
    """Return the path that ``file`` leads to.

    Raises:
        OutputError: it is a symbolic link that leads back to itself.
    """
    try:
        return file.resolve()
    except (OSError, RuntimeError) as error:  # OSError from Python 3.13 on
        raise OutputError(f"{file} is a symbolic link that leads back to itself") from error


def check_distinct(*files: Path | None) -> None:
    """Check that the output files of a command are distinct; None is ignored.

    Raises:
        OutputError: two of them are the same.
    """
    seen: set[Path] = set()
    for file in files:
        if file is None:
            continue
        target = _resolved(file)
        if target in seen:
            raise OutputError(f"{file} is named for two outputs of this command: name another file for one of them")
        seen.add(target)


def checked_option(file: Path | None) -> Path | None:
    """Return ``file`` after :func:`check_target`; a typer callback.

    Raises:
        typer.BadParameter: the file may not be written (exit code 2).
    """
    import typer

    try:
        if file is not None:
            check_target(file)
    except OutputError as error:
        raise typer.BadParameter(str(error)) from error
    return file


_SOFTWARE = 0x0131  # the EXIF tag that names the program


def _picture_mark(file: Path) -> str | None:
    from PIL import Image

    try:
        with Image.open(file, formats=("PNG", "JPEG", "WEBP")) as picture:
            found = picture.info.get("Software") or picture.info.get("comment") or picture.getexif().get(_SOFTWARE)
    except Exception:  # Pillow raises many kinds for damaged files, which acs did not write
        return None
    text = found.decode("ascii", "replace") if isinstance(found, bytes) else str(found)
    return text if re.fullmatch("acs-[ a-z-]+", text) else None


def _is_foreign(file: Path) -> bool:
    """Return whether ``file`` is a non-empty file that acs did not write, or that was edited since."""
    return file.is_file() and file.stat().st_size > 0 and (written_by(file) is None or _is_changed(file))


def _is_changed(file: Path) -> bool:
    """Return whether ``file`` has a mark with a SHA-256 that is not that of its content."""
    with file.open("rb") as stream:
        mark = _TEXT_MARKS[-1].match(stream.readline(HEAD_BYTES))
        return mark is not None and mark[2].decode() != _digest(stream.read())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _free_name(file: Path) -> Path:
    number = 2
    while (free := file.with_name(f"{file.stem}-{number}{file.suffix}")).exists():
        number += 1
    return free
