"""How much memory this process holds, on the host and on the GPU."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from pathlib import Path

GB = 1e9
# glibc's malloc.h. By default, a freed frame moves the threshold from which on memory comes straight from the system up
# to the frame's size; from then on frames lie among small things in the heap of whichever thread took them, and the
# heaps of two dozen threads grow for hours.
M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8
OWN_PAGES_BYTES = 1 << 20
ARENAS = 2


@dataclass(frozen=True)
class Memory:
    """``host_gb``: resident memory of the process. ``gpu_gb``: what torch holds on the GPU it uses, and ``gpu_share``:
    the used share of that whole GPU, by anybody; None without one."""

    host_gb: float = 0.0
    gpu_gb: float | None = None
    gpu_share: float | None = None


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


def steady_heap() -> bool:
    """Make memory that is freed go back to the system: what is larger than OWN_PAGES_BYTES (a frame) gets pages of its
    own, and threads share ARENAS heaps. To be called before threads start; False where the C library has no such
    settings (it is glibc that has)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, OWN_PAGES_BYTES)) and bool(mallopt(M_ARENA_MAX, ARENAS))
