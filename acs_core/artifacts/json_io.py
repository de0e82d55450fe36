"""Reading JSON files without trusting their content: bounded, strict, never a crash.

A key that occurs twice in an object is an error, since readers differ in which of the values they use.

A parsed value takes up to 90 bytes where its text takes two, so the number of values is limited, too. It is estimated
before parsing, by counting the characters ``,[{:`` in the raw bytes, including those inside strings.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from acs_core.plain_text import shorten


@dataclass(frozen=True)
class Limits:
    """Size limits of a kind of file: ``max_bytes`` of (uncompressed) text, and ``max_values``."""

    max_bytes: int
    max_values: int

    def check_size(self, size: int) -> None:
        """Check a file size in bytes.

        Raises:
            ValueError: ``size`` is above ``max_bytes``.
        """
        if size > self.max_bytes:
            raise ValueError(f"it is larger than {self.max_bytes >> 20} MiB, which no such file needs")

    def check(self, raw: bytes) -> None:
        """Check the size and number of values of the JSON text ``raw``.

        Raises:
            ValueError: either is above its limit.
        """
        self.check_size(len(raw))
        values = sum(raw.count(sign) for sign in (b",", b"[", b"{", b":"))
        if values > self.max_values:
            raise ValueError(f"it holds more than {self.max_values:,} values, which no such file needs")


LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"  # what git leaves in place of a file of git-lfs
SMALL = Limits(8 * 2**20, 500_000)  # head files, calibrations, metadata: kilobytes
# instances_train2017.json of COCO: 450 MB, about 70 million values. Such files are read uncompressed.
COCO = Limits(8 * 2**30, 1_000_000_000)


def refuse_pointer(raw: bytes) -> None:
    """Check that the first bytes of a file are not those of a git-lfs pointer.

    Raises:
        ValueError: they are.
    """
    if raw.startswith(LFS_POINTER):
        raise ValueError("it is a git-lfs pointer, not the file itself: run git lfs pull in its folder")


def open_file(path: Path) -> BinaryIO:
    """Open the regular file ``path`` for reading bytes, without blocking on pipes.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is a folder, a pipe or a device.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("it cannot be read: it is no file")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_bounded(path: Path, limits: Limits) -> bytes:
    """Return the content of the regular file ``path``.

    Raises:
        OSError: it cannot be opened or read.
        ValueError: it is not a regular file, or larger than ``limits``.
    """
    with open_file(path) as file:
        raw = file.read(limits.max_bytes + 1)
    limits.check_size(len(raw))
    return raw


def read_bytes(path: Path, limits: Limits) -> bytes:
    """Return the content of the regular file ``path``, with all errors as ValueError.

    Raises:
        ValueError: it is not a regular file, not readable, or larger than ``limits``.
    """
    try:
        return read_bounded(path, limits)
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror or error}") from error


def read_json(path: Path, limits: Limits = SMALL, nan: bool = False) -> Any:
    """Return the JSON value in ``path``.

    Args:
        path: the file.
        limits: size limits.
        nan: whether to accept NaN and Infinity, as Python writes them.

    Raises:
        ValueError: the file is not readable, larger than ``limits``, or not valid JSON.
    """
    return parse_json(read_bytes(path, limits), limits, nan)


def parse_json(raw: bytes, limits: Limits = SMALL, nan: bool = False) -> Any:
    """Return the JSON value of the text ``raw``; ``nan`` as in :func:`read_json`.

    Raises:
        ValueError: the text is larger than ``limits``, not valid JSON, or a key occurs twice in an object.
    """
    limits.check(raw)
    refuse_pointer(raw)
    try:
        return json.loads(
            raw.decode("utf-8-sig"), parse_constant=None if nan else _refuse_constant, object_pairs_hook=_object
        )
    except (UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"it is not JSON text ({type(error).__name__}); is it damaged?") from error
    except _DuplicateKey as error:
        raise ValueError(str(error)) from error
    except ValueError as error:
        raise ValueError(f"it is not valid JSON: {error}") from error


def read_object(path: Path, schema_version: int, limits: Limits = SMALL, *, since: int | None = None) -> dict[str, Any]:
    """Return the JSON object in ``path`` after checking its ``schema_version``, which may be as low as ``since``. NaN
    and Infinity are refused.

    Raises:
        ValueError: the file is not readable, larger than ``limits``, not a JSON object, or of another schema version;
            the message says which, and what to do.
    """
    return parse_object(read_bytes(path, limits), schema_version, limits, since=since)


def parse_object(
    raw: bytes, schema_version: int, limits: Limits = SMALL, *, since: int | None = None
) -> dict[str, Any]:
    """Return the JSON object of the text ``raw``, checked as by :func:`read_object`.

    Raises:
        ValueError: the text is larger than ``limits``, not a JSON object, or of another schema version.
    """
    data = parse_json(raw, limits)
    if not isinstance(data, dict):
        raise ValueError(f"it must hold one JSON object, not a {type(data).__name__}")
    found = data.get("schema_version")
    first = schema_version if since is None else since
    if isinstance(found, bool) or not isinstance(found, int) or not first <= found <= schema_version:
        known = str(schema_version) if first == schema_version else f"{first} to {schema_version}"
        raise ValueError(f'field "schema_version" is {shorten(found)}, this version of acs reads {known}')
    return data


def number(data: Mapping[str, Any], key: str, where: str = "") -> float:
    """Return ``data[key]`` as a finite float.

    Raises:
        ValueError: it is missing, not a number, or not finite; the message names ``where`` and ``key``.
    """
    value = data.get(key)
    try:
        result = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    except OverflowError:
        result = math.nan
    if not math.isfinite(result):
        raise ValueError(f'{where}field "{key}" must be a finite number, got {shorten(value)}')
    return result


class _DuplicateKey(ValueError):
    """A key occurs twice in a JSON object."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for i, key in enumerate(keys) if key in keys[:i])
        raise _DuplicateKey(f"the key {shorten(twice)} stands twice in one object: remove one of the two")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number that JSON allows")
