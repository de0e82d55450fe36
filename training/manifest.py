"""The manifest of a collection: what it was made with, and what a run that goes on with it must share."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from training.errors import DataError
from training.quantise import LEVELS

MANIFEST = "manifest.json"
FORMAT = 3  # of a store; count up when an older one can no longer be read
# What may differ between the runs that fill one store: it is recorded, not compared.
NOT_COMPARED = ("versions", "workers", "truth")


def fingerprint(manifest: dict[str, Any]) -> str:
    """Twelve hex digits that two manifests share if, and only if, one collection can stand for the other. ``manifest``
    is that of a store or what begins one."""
    compared = {k: v for k, v in complete(manifest).items() if k not in NOT_COMPARED}
    return hashlib.sha256(json.dumps(compared, sort_keys=True).encode()).hexdigest()[:12]


def complete(manifest: dict[str, Any]) -> dict[str, Any]:
    """``manifest`` with the version of the store's format."""
    return {"format": FORMAT, "levels": LEVELS, **manifest}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The settings the store was made with.

    Raises:
        DataError: there is no store in ``folder``, its manifest is damaged, or it is of an older version of acs.
    """
    try:
        content = json.loads((folder / MANIFEST).read_text())
    except OSError as error:
        raise DataError(f"{folder} holds no collection: make one with `acs-train collect`") from error
    except ValueError as error:
        raise DataError(f"{folder / MANIFEST} is damaged ({error}): collect again into another folder") from error
    if not isinstance(content, dict):
        raise DataError(f"{folder / MANIFEST} is damaged: it should hold a JSON object")
    if (content.get("format"), content.get("levels")) != (FORMAT, LEVELS):
        raise DataError(f"{folder} was written by another version of acs: collect again into another folder")
    return content
