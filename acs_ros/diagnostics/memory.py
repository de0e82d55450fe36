"""Memory of this process on the host and on the GPU, and the settings that keep its heap small."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from acs_core.heap import M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, tune_heap

GB = 1e9
# Two dozen threads allocate and free frames. With glibc's defaults the heap of each thread grows for hours, because
# frames lie between small allocations; and a heap with a free end shrinks at once, so that the pages of the next frame
# come from the system again, which costs many times as much as copying the frame.
KEPT_BYTES = 512 << 20  # free memory at the end of the heap that is kept until the next trim
OWN_PAGES_BYTES = 32 << 20  # glibc's maximum: larger blocks than a 4K frame are mapped from the system each time
ARENAS = 1  # a trim does not return the free end of any heap but the first
TRIM_PERIOD_S = 10.0


@dataclass(frozen=True)
class Memory:
    """Memory in use.

    Attributes:
        host_gb: Resident memory of this process, in GB.
        gpu_gb: Memory that torch has reserved on its GPU, in GB; None without one.
        gpu_share: Share of the memory of that GPU that is in use by all processes, in [0, 1]; None without one.
    """

    host_gb: float = 0.0
    gpu_gb: float | None = None
    gpu_share: float | None = None


def measure_memory() -> Memory:
    """The memory in use now. torch is called only if it already uses a GPU, as the call itself would allocate one."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)  # torch may be half imported on another thread
    initialized = getattr(cuda, "is_initialized", None)
    if cuda is None or initialized is None or not initialized():
        return Memory(resident_bytes() / GB)
    free, total = cuda.mem_get_info()
    return Memory(resident_bytes() / GB, cuda.memory_reserved() / GB, 1 - free / total)


def resident_bytes() -> int:
    """Resident memory of this process in bytes; 0 on systems other than Linux."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0


def steady_heap() -> bool:
    """Give all threads one heap, which keeps freed memory for the next frames.

    :func:`acs_core.heap.trim_heap`, which the node calls every TRIM_PERIOD_S, returns it to the system. To be called
    before threads start.

    Returns:
        False if the C library has no such settings.
    """
    return tune_heap(((M_MMAP_THRESHOLD, OWN_PAGES_BYTES), (M_TRIM_THRESHOLD, KEPT_BYTES), (M_ARENA_MAX, ARENAS)))
