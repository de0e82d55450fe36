"""Settings of the C library's heap, where it is glibc that has it; what each program wants of them, it says itself."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable

# The names of glibc's malloc.h, for :func:`tune_heap`.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -3, -4, -8


def tune_heap(settings: Iterable[tuple[int, int]]) -> bool:
    """Sets each (name, value) for the whole process, up to the first that is not taken: then it is False, and where
    there are no such settings."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(bool(mallopt(name, value)) for name, value in settings)


def trim_heap() -> None:
    """Gives all free memory back to the system, where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
