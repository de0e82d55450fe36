"""How much memory this process holds, on the host and on the GPU."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from pathlib import Path

GB = 1e9
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
HEAP_BYTES = 32 << 20  # smaller blocks come from the heap; the largest that glibc takes
KEPT_BYTES = 64 << 20  # free memory at a heap's end that is not given back at once


@dataclass(frozen=True)
class Memory:
    """``host_gb``: resident memory of the process. ``gpu_gb``: what torch holds on the GPU it uses, and ``gpu_share``:
    the used share of that whole GPU, by anybody; None without one."""

    host_gb: float = 0.0
    gpu_gb: float | None = None
    gpu_share: float | None = None


def keep_freed_memory() -> bool:
    """Let this process use the memory of one frame again for the next. False where the C library is not glibc.

    By default glibc gives the megabytes of each frame back to the system as soon as they are free, and the system
    clears them, page by page, when the next frame comes: a third of the time that a 1080p frame takes.
    ``malloc_trim``, as in :func:`acs_ros.grounder_source.free_memory`, gives everything back all the same.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, HEAP_BYTES)) and bool(mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))


def measure_memory() -> Memory:
    """The memory now. torch is asked only where it is loaded and already uses a GPU: asking would claim one."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)  # torch may be half imported on another thread
    initialized = getattr(cuda, "is_initialized", None)
    if cuda is None or initialized is None or not initialized():
        return Memory(resident_bytes() / GB)
    free, total = cuda.mem_get_info()
    return Memory(resident_bytes() / GB, cuda.memory_reserved() / GB, 1 - free / total)


def resident_bytes() -> int:
    """Resident memory of this process in bytes; 0 where the system does not tell (it is Linux that does)."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0
