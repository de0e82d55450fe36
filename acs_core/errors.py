"""Exceptions raised by acs, and messages for operating system errors.

Each message says what was wrong, where, and what to do about it.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from acs_core.plain_text import one_line

FULL = (errno.ENOSPC, errno.EDQUOT)


class AcsError(Exception):
    """Base class of all exceptions that acs raises on purpose.

    Its text is one printable line of bounded length, even if the message quotes a file or a model's response.
    """

    def __str__(self) -> str:
        return one_line(super().__str__())


class ModelError(AcsError):
    """Raised if a model cannot be used: missing, unsupported architecture, remote code, or unsafe weights."""


class OptionError(ModelError, ValueError):
    """Raised for an unknown device, dtype or quantization."""


class ArtifactError(AcsError):
    """A file that a selector reads is missing, cannot be read, or was made for another model."""


class HeadFileError(ArtifactError):
    """A head file cannot be read, or was made for another model."""


class RegressorError(ArtifactError):
    """A regressor file cannot be read, or was made for another model."""


class JointError(RegressorError):
    """A joint model's file cannot be read, or was made for another model."""


class CalibrationError(AcsError):
    """Raised if a calibration file cannot be read or was made for another selector or model."""


class SelectorError(AcsError, ValueError):
    """Raised if there is no selector of the given name."""


class NonFiniteError(AcsError):
    """A model, or a file that belongs to it, gave NaN or infinite values; no result is computed from them."""


class PhraseError(AcsError):
    """Raised if a phrase is empty, too long, or consists of control characters only."""


class ImageError(AcsError):
    """Raised if an image has an unusable shape, type, encoding or size, or truncated data."""


class OutputError(AcsError):
    """Raised if a file or folder is not written because acs did not make it or another process is writing it."""


class BenchError(AcsError):
    """Raised if a benchmark cannot be run."""


class DeviceMemoryError(AcsError):
    """Raised if the model's device has no memory for even one response."""


class Cancelled(AcsError):
    """Raised if the caller stopped a running call."""


def os_problem(error: OSError, where: object = "") -> str:
    """Return one sentence about ``error`` with the file, or else ``where``.

    For a full disk the sentence also says how much space is left and what to do.
    """
    place = error.filename or where
    said = f"{place}: {error.strerror or error}" if place else str(error.strerror or error)
    if error.errno in FULL:
        said += f"{_room(place)}. What was there before stays. Free some space, or write to another disk, and run the "
        said += "same command again"
    return said


@contextmanager
def with_file(file: str | Path, only_unnamed: bool = False) -> Iterator[None]:
    """Set the file name of an OSError raised in the block to ``file``, since the system gives none when a write fails.

    Args:
        file: the file.
        only_unnamed: whether to keep the name of an error that has one.

    Raises:
        OSError: the error of the block, with ``filename`` set to ``file``.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or (only_unnamed and error.filename):
            raise
        raise OSError(error.errno, error.strerror, str(file)) from error


def _room(place: object) -> str:
    """Return " (FOLDER has N MB free)", or "" if that is unknown."""
    if not place:
        return ""
    folder = Path(str(place))
    folder = folder if folder.is_dir() else folder.parent
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return ""
    return f" ({folder} has {free / 1e6:.1f} MB free)"
