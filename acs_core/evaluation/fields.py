"""Checked access to the fields of an untrusted JSON file.

All functions raise ValueError if a field has the wrong type or size; the message begins with ``where``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from acs_core.plain_text import shorten

LARGEST = 1e15  # limit of a number: larger than any coordinate, score or time


def numbers(values: Any, where: str) -> list[float]:
    """Return ``values`` as a list of finite numbers."""
    if not isinstance(values, list):
        raise ValueError(f"{where} must be a list of numbers, got {shorten(values)}")
    return [finite(value, where) for value in values]


def exactly(count: int, values: Any, where: str) -> list[float]:
    """Return ``values`` as a list of ``count`` finite numbers."""
    found = numbers(values, where)
    if len(found) != count:
        raise ValueError(f"{where} must be {count} numbers, got {len(found)}")
    return found


def finite(value: Any, where: str) -> float:
    """Return ``value`` as a finite number of magnitude below :data:`LARGEST`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < LARGEST:
        raise ValueError(f"{where} must hold finite numbers, got {shorten(value)}")
    return float(value)


def optional(value: Any, where: str) -> float | None:
    """Return ``value`` as a finite number, or None if it is None."""
    return None if value is None else finite(value, where)


def text(data: Mapping[str, Any], key: str, where: str = "") -> str:
    """Return ``data[key]`` as a string."""
    value = data.get(key)
    if not isinstance(value, str):
        raise ValueError(f'{where}field "{key}" must be a string, got {shorten(value)}')
    return value


def listed(
    data: Mapping[str, Any], key: str, where: str = "", count: int | None = None, default: list[Any] | None = None
) -> list[Any]:
    """Return ``data[key]`` as a list.

    Args:
        data: the JSON object.
        key: name of the field.
        where: prefix of the error message.
        count: required length, the number of questions; None for any.
        default: value to use if the field is missing.
    """
    value = data.get(key, default)
    if not isinstance(value, list):
        raise ValueError(f'{where}field "{key}" must be a list, got {shorten(value)}')
    if count is not None and len(value) != count:
        raise ValueError(f'{where}field "{key}" must have {count} entries, one for each question, got {len(value)}')
    return value


def objects(
    data: Mapping[str, Any], key: str, where: str = "", default: list[Any] | None = None
) -> list[dict[str, Any]]:
    """Return ``data[key]`` as a list of JSON objects, or ``default`` if the field is missing."""
    values = listed(data, key, where, default=default)
    for i, value in enumerate(values):
        if not isinstance(value, dict):
            raise ValueError(f"{where}{key}[{i}] must be an object, got {shorten(value)}")
    return values
