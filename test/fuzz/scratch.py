"""A folder for the files of cases."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path


@cache
def scratch() -> Path:
    """A folder of this process, in memory where the system has such a place."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="acs-fuzz-", dir=memory if memory.is_dir() else None))


def write(name: str, content: bytes) -> Path:
    """``content`` in a file of the scratch folder."""
    path = scratch() / name
    path.write_bytes(content)
    return path
