"""The page cache of Linux: files that are dropped from it without privileges, and how much of them is still in it."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

_FAILED = ctypes.c_void_p(-1).value


def forget(files: Iterable[Path]) -> None:
    """Ask the kernel to drop ``files`` from the page cache (``posix_fadvise`` with ``POSIX_FADV_DONTNEED``).

    Pages that a running process has mapped stay, such as those of a library that another program uses. Files that
    cannot be read are left out.
    """
    for path in files:
        try:
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError:
            continue


def cached_mb(files: Iterable[Path]) -> float | None:
    """Return the MB of ``files`` that are in the page cache (``mincore``); None if the system does not tell."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "mincore"):
        return None
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    return sum(_cached_pages(libc, path) for path in files) * mmap.PAGESIZE / 2**20


def _cached_pages(libc: ctypes.CDLL, path: Path) -> int:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            # Mapping a file reads none of it.
            address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0) if size else _FAILED
    except OSError:
        return 0
    if address == _FAILED:
        return 0
    pages = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
    told = libc.mincore(address, size, pages.ctypes.data)
    libc.munmap(address, size)
    return int((pages & 1).sum()) if told == 0 else 0
