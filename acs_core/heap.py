"""Settings of glibc's heap; without effect with other C libraries."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable

# Parameters of glibc's malloc.h for :func:`tune_heap`.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -3, -4, -8


def tune_heap(settings: Iterable[tuple[int, int]]) -> bool:
    """Set malloc parameters for the whole process.

    Args:
        settings: (name, value) pairs, such as (:data:`M_ARENA_MAX`, 2).

    Returns:
        Whether all were accepted; False also if the C library has no such settings. The pairs after a refused one are
        not set.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(bool(mallopt(name, value)) for name, value in settings)


def trim_heap() -> None:
    """Return free memory to the system, if the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
