"""Free memory of the machine, or of the container that limits this process."""

from __future__ import annotations

import os
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")  # of the process itself inside a container; version 2


def free_memory() -> int:
    """Return how many bytes can still be used: what the system calls available, and at most what the container's limit
    leaves. Caches that the system can drop count as free."""
    free = _available()
    limit, used = (_number(CGROUP / name) for name in ("memory.max", "memory.current"))
    if limit is not None and used is not None:
        free = min(free, max(0, limit - used + _inactive()))
    return free


def _available() -> int:
    try:
        for line in MEMINFO.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 0


def _number(file: Path) -> int | None:
    """Return the number in ``file``; None if there is no file, or no limit in it."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _inactive() -> int:
    """Return the bytes of the container's file cache that can be dropped."""
    try:
        for line in (CGROUP / "memory.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "inactive_file":
                return int(value)
    except (OSError, ValueError):
        pass
    return 0
