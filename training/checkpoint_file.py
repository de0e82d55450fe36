"""Checkpoint files: a state of tensors and plain values, behind its SHA-256. What is read cannot run code.

``torch.save`` writes pickles. They are read with torch's restricted unpickler alone (``weights_only``), which makes
tensors and plain containers and refuses everything else.
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import torch

from acs_core.artifacts.json_io import open_file
from acs_core.output import replaced
from training.errors import DataError

MAGIC = b"acs checkpoint 1\n"
DIGEST_BYTES = 32
MAX_BYTES = 2 << 30


def write_state(file: Path, state: dict[str, Any]) -> None:
    """Replaces ``file``, whole or not at all."""
    written = io.BytesIO()
    torch.save(state, written)
    content = written.getbuffer()
    file.parent.mkdir(parents=True, exist_ok=True)
    with replaced(file) as beside, beside.open("wb") as out:
        out.write(MAGIC + hashlib.sha256(content).digest())
        out.write(content)


def read_state(file: Path, device: str = "cpu", advice: str = "delete it") -> dict[str, Any]:
    """The state that :func:`write_state` wrote into ``file``, its tensors on ``device``. Error messages end with
    ``advice``: what to do about the file.

    Raises:
        DataError: the file cannot be read, is damaged, no checkpoint of this version of acs, or holds anything but
            tensors and plain values.
    """
    try:
        with open_file(file) as content:
            if os.fstat(content.fileno()).st_size > MAX_BYTES:
                raise DataError(f"{file} is larger than {MAX_BYTES >> 20} MiB, which no checkpoint is: {advice}")
            head, digest = content.read(len(MAGIC)), content.read(DIGEST_BYTES)
            if head != MAGIC:
                raise DataError(f"{file} is no checkpoint, or one of another version of acs: {advice}")
            raw = content.read()
    except (FileNotFoundError, ValueError) as error:
        raise DataError(f"{file} is missing, or no file: {advice}") from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from error  # deleting mends nothing
    if hashlib.sha256(raw).digest() != digest:
        raise DataError(f"{file} is damaged (its SHA-256 differs): {advice}")
    try:
        state = torch.load(io.BytesIO(raw), map_location=device, weights_only=True)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a pickle that was made to do harm fails in many ways
        raise DataError(
            f"{file} holds something else than numbers, which may run code when it is read; nothing of it was run "
            f"({type(error).__name__}): {advice}"
        ) from error
    if not isinstance(state, dict):
        raise DataError(f"{file} is no checkpoint, it holds a {type(state).__name__}: {advice}")
    return state
