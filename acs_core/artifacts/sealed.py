"""JSON objects that contain the SHA-256 of their own content, to detect damage.

The sum is computed over the values, so indentation does not matter. It does not protect against forgery.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acs_core.artifacts.json_io import SMALL, Limits, parse_json, read_bounded

KEY = "sha256"


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``content`` as JSON values, with its SHA-256 in hex under :data:`KEY`.

    Raises:
        ValueError: ``content`` already has that key.
        TypeError: a value cannot be represented in JSON.
    """
    if KEY in content:
        raise ValueError(f'the content has a field "{KEY}" of its own')
    plain: dict[str, Any] = json.loads(json.dumps(dict(content)))
    return {**plain, KEY: _sum(plain)}


def unseal(raw: bytes, limits: Limits = SMALL) -> dict[str, Any]:
    """Return the content of a sealed JSON text, without :data:`KEY`.

    Raises:
        ValueError: the text is not a JSON object, exceeds ``limits``, or its sum is missing or wrong.
    """
    data = parse_json(raw, limits, nan=True)
    if not isinstance(data, dict):
        raise ValueError(f"it holds a {type(data).__name__} where a JSON object should be")
    found = data.pop(KEY, None)
    if found is None:
        raise ValueError(f'it has no field "{KEY}"')
    if found != _sum(data):
        raise ValueError(f'its content is not that of its field "{KEY}": it was changed after it was written')
    return data


def read_sealed(file: Path, limits: Limits = SMALL) -> dict[str, Any]:
    """Return the content of the sealed JSON object in ``file``.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a regular file, or as for :func:`unseal`.
    """
    return unseal(read_bounded(file, limits), limits)


def _sum(plain: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
