"""Removes the shared memory that killed processes left behind, as ``fastdds shm clean`` does for segments.

A participant of Fast DDS makes a segment for its messages and holds a lock on a file beside it as long as its process
lives. One that is killed leaves both: with the shipped profile, up to 64 MB each time, until the machine is restarted.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path("/dev/shm")
# Segments have random names, which no participant takes again. Ports (fastdds_port7411) have fixed ones: Fast DDS takes
# over a dead port itself, and one that is just being made could not be told from it.
LOCK = re.compile(r"(fastdds|fastrtps)_[0-9a-f]{16}_el")
OLDEST_NEW_S = 60.0  # a participant makes the lock file, and locks it a moment later


@dataclass(frozen=True)
class RemovedSegments:
    """What was removed: how many segments, and how many bytes of memory they took."""

    count: int = 0
    size: int = 0

    def __str__(self) -> str:
        one = "a shared-memory segment" if self.count == 1 else f"{self.count} shared-memory segments"
        whose = "a killed process" if self.count == 1 else "killed processes"
        return f"removed {one} of {whose} ({self.size / 1e6:.1f} MB)"


def remove_dead_segments(folder: Path = FOLDER, min_age: float = OLDEST_NEW_S) -> RemovedSegments:
    """Remove the segments whose process is dead: nobody holds the lock of their lock file.

    Left alone are segments of other users, segments without a lock file, and those whose lock file is younger than
    ``min_age`` seconds. Never raises: what cannot be read or removed stays.
    """
    count = size = 0
    with suppress(OSError):
        for file in sorted(folder.iterdir()):
            if LOCK.fullmatch(file.name) and (found := _remove(file, min_age)) is not None:
                count, size = count + 1, size + found
    return RemovedSegments(count, size)


def _remove(lock: Path, min_age: float) -> int | None:
    """Remove a dead segment and its ``lock`` file. Returns the bytes that it took, or None if it stays."""
    segment = lock.with_name(lock.name.removesuffix("_el"))
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        files = [os.fstat(descriptor), os.lstat(segment)]
        if not all(stat.S_ISREG(file.st_mode) and file.st_uid == os.geteuid() for file in files):
            return None
        if files[0].st_size or time.time() - files[0].st_mtime < min_age:
            return None
        segment.unlink()  # first: a lock file without a segment is all that an interruption leaves
        lock.unlink()
    except OSError:  # the lock is held, or a file is gone
        return None
    finally:
        os.close(descriptor)
    return files[1].st_blocks * 512
