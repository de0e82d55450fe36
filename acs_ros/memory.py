"""How much memory this process holds, on the host and on the GPU."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from acs_core.heap import M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, tune_heap

GB = 1e9
# Two dozen threads take and free frames. Left alone, each thread's heap grows for hours, since frames
# lie among small things there; and a heap whose end is free shrinks at once, so that the next frame's pages come from
# the system again, which costs many times what copying the frame costs.
KEPT_BYTES = 512 << 20  # free memory at the end of a heap that waits for the next trim
OWN_PAGES_BYTES = 32 << 20  # the most that glibc takes: larger pieces than a 4K frame come from the system each time
ARENAS = 1  # a trim leaves the free end of every heap but the first as it is
TRIM_PERIOD_S = 10.0


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
    """Give all threads one heap and keep what is freed for the next frames, until :func:`acs_core.heap.trim_heap`,
    which is called every TRIM_PERIOD_S and keeps the process as small as what it holds. To be called before threads
    start; False where the C library has no such settings."""
    return tune_heap(((M_MMAP_THRESHOLD, OWN_PAGES_BYTES), (M_TRIM_THRESHOLD, KEPT_BYTES), (M_ARENA_MAX, ARENAS)))
