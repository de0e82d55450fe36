"""Manifest of a collection: its model, pairs and settings, which a resumed run must share."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from acs_core.artifacts.json_io import Limits, read_json, shorten
from acs_core.artifacts.sealed import read_sealed, seal
from acs_core.errors import with_file
from training.collection.part_arrays import LEVELS
from training.errors import DataError

MANIFEST = "manifest.json"
FORMAT = 5  # of a store; increment when older stores can no longer be read. 5: log-probabilities of the tokens
MAX_COORDINATE = 1e6  # pixels; largest coordinate of a true box
LIMITS = Limits(1 << 30, 100_000_000)
# Fields that may differ between the runs that fill one store: recorded, but not compared.
NOT_COMPARED = ("versions", "workers", "truth", "pictures")
NOT_COMPARED_OF_MODEL = ("hidden_size",)  # older stores lack it


def fingerprint(manifest: dict[str, Any]) -> str:
    """Return the fingerprint of a collection, twelve hex digits, from its manifest or the beginning of one.

    Two manifests have the same fingerprint if, and only if, their collections are interchangeable.
    """
    return hashlib.sha256(json.dumps(compared(complete(manifest)), sort_keys=True).encode()).hexdigest()[:12]


def compared(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a manifest that the runs which fill one store must share."""
    fields = {k: v for k, v in manifest.items() if k not in NOT_COMPARED}
    if isinstance(model := fields.get("model"), dict):
        fields["model"] = {k: v for k, v in model.items() if k not in NOT_COMPARED_OF_MODEL}
    return fields


def changed_pictures(one: dict[str, Any], other: dict[str, Any]) -> int:
    """Return the number of pairs whose picture files differ between two manifests of the same pairs; pictures that one
    of them does not know count as the same."""
    mine, theirs = one.get("pictures"), other.get("pictures")
    if not isinstance(mine, list) or not isinstance(theirs, list):
        return 0
    return sum(bool(a and b and a != b) for a, b in zip(mine, theirs, strict=False))


def complete(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return ``manifest`` with the version of the store's format."""
    return {"format": FORMAT, "levels": LEVELS, **manifest}


def manifest_text(manifest: dict[str, Any]) -> str:
    """Return the text of the manifest's file."""
    return json.dumps(seal(manifest), indent=1) + "\n"


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of the store in ``folder``.

    Raises:
        DataError: there is no store in ``folder``, its manifest is damaged, or it is of another version of acs.
        OSError: the manifest cannot be read, but may be intact.
    """
    file = folder / MANIFEST
    try:
        with with_file(file):
            content = read_sealed(file, LIMITS)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{folder} holds no collection: make one with `acs-train collect`") from error
    except ValueError as error:
        if (other := _format_of(file)) not in (None, FORMAT):
            raise DataError(
                f"{folder} was written by another version of acs, in format {other}; this one reads format {FORMAT}, "
                "whose files carry digests. Collect again into another folder"
            ) from error
        raise DataError(f"{file} is damaged ({error}): collect again into another folder") from error
    if (content.get("format"), content.get("levels")) != (FORMAT, LEVELS):
        raise DataError(f"{folder} was written by another version of acs: collect again into another folder")
    _check(content, file)
    return content


def _format_of(file: Path) -> int | None:
    """Return the format version in a manifest without a digest."""
    try:
        content = read_json(file, LIMITS, nan=True)
    except ValueError:
        return None
    found = content.get("format") if isinstance(content, dict) else None
    return found if isinstance(found, int) else None


def _check(content: dict[str, Any], file: Path) -> None:
    """Raise DataError if a list with one entry per pair has another length, or a true box is invalid."""
    pairs = content.get("pairs")
    count = len(pairs) if isinstance(pairs, list) else None
    for name in ("pairs", "kinds", "truth", "windows", "pictures"):
        found = content.get(name)
        if found is not None and (not isinstance(found, list) or len(found) != count):
            raise DataError(f"{file} is damaged ({name} is no list with an entry for each pair): collect again")
    for boxes in content.get("truth") or ():
        if not isinstance(boxes, list) or not all(map(_is_box, boxes)):
            raise DataError(f"{file} is damaged (truth holds {shorten(boxes)}, not boxes): collect again")


def _is_box(values: Any) -> bool:
    return (
        isinstance(values, list)
        and len(values) == 4
        and all(type(v) in (int, float) and abs(v) <= MAX_COORDINATE for v in values)
    )
