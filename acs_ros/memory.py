"""How much memory this process holds, on the host and on the GPU."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

GB = 1e9


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
