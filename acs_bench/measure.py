"""Wall time and peak memory of a call."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch

from acs_core.heap import trim_heap

T = TypeVar("T")
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


@dataclass(frozen=True)
class Measured(Generic[T]):
    """``seconds`` is the median of all runs, ``added_mb`` the most that a run held at a time beyond what was there
    before it (None where the system does not tell), ``value`` what the last run returned."""

    seconds: float
    added_mb: float | None
    value: T


def measure(call: Callable[[], T], device: torch.device, repeats: int = 1) -> Measured[T]:
    """Runs ``call`` ``repeats`` times; on a GPU until it has done all that was asked of it."""
    seconds, added = [], []
    for _ in range(repeats):
        value = None  # frees what the run before returned
        before = _start_memory(device)
        _wait(device)
        start = time.perf_counter()
        value = call()
        _wait(device)
        seconds.append(time.perf_counter() - start)
        added.append(_peak_mb(device, before))
    known = [mb for mb in added if mb is not None]
    return Measured(statistics.median(seconds), max(known) if known else None, value)  # type: ignore[arg-type]


def size_mb(module: torch.nn.Module) -> float:
    """Megabytes of a module's weights."""
    return sum(p.numel() * p.element_size() for p in module.parameters()) / 2**20


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _start_memory(device: torch.device) -> float | None:
    """Megabytes in use, and the peak counter set back to it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device) / 2**20
    trim_heap()  # what the allocator keeps after an earlier run would hide what this one needs
    try:
        _CLEAR.write_text(_RESET_PEAK)
        return _status_mb("VmRSS")
    except OSError:
        return None


def _peak_mb(device: torch.device, before: float | None) -> float | None:
    if before is None:
        return None
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20 - before
    return max(0.0, _status_mb("VmHWM") - before)


def _status_mb(field: str) -> float:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024
