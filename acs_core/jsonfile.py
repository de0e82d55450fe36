"""Reading small JSON files that somebody else may have written: bounded, strict, never a crash."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

MAX_BYTES = 8 * 2**20


def read_object(path: Path, schema_version: int, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """The JSON object in ``path`` after checking its ``schema_version``. NaN and Infinity are refused.

    Raises:
        ValueError: not readable, larger than ``max_bytes``, not a JSON object, or of another schema version. The
            message says which, and what to do.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(max_bytes + 1)
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror or error}") from error
    if len(raw) > max_bytes:
        raise ValueError(f"it is larger than {max_bytes / 2**20:.0f} MiB, which no such file needs")
    return parse_object(raw, schema_version)


def parse_object(raw: bytes, schema_version: int) -> dict[str, Any]:
    """The JSON object that ``raw`` spells, checked as by :func:`read_object`.

    Raises:
        ValueError: not a JSON object, or of another schema version.
    """
    try:
        data = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
    except (UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"it is not JSON text ({type(error).__name__}); is it damaged?") from error
    except ValueError as error:
        raise ValueError(f"it is not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"it must hold one JSON object, not a {type(data).__name__}")
    found = data.get("schema_version")
    if found != schema_version or isinstance(found, bool):
        raise ValueError(f'field "schema_version" is {shorten(found)}, this version of acs reads {schema_version}')
    return data


def number(data: Mapping[str, Any], key: str, where: str = "") -> float:
    """``data[key]`` as a finite float.

    Raises:
        ValueError: missing, not a number, or not finite; the message names ``where`` and ``key``.
    """
    value = data.get(key)
    try:
        result = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    except OverflowError:
        result = math.nan
    if not math.isfinite(result):
        raise ValueError(f'{where}field "{key}" must be a finite number, got {shorten(value)}')
    return result


def shorten(value: object, limit: int = 60) -> str:
    """``repr(value)``, cut for an error message: what is quoted may be of any length and depth."""
    try:
        text = repr(value[: limit + 1] if isinstance(value, str) else value)
    except RecursionError:
        text = f"a {type(value).__name__}, nested too deeply"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number that JSON allows")
