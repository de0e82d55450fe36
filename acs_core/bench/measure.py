"""Wall time and peak memory of a call, and a description of the machine."""

from __future__ import annotations

import datetime
import gc
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
import transformers

from acs_core.heap import trim_heap

T = TypeVar("T")
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


@dataclass(frozen=True)
class Measurement(Generic[T]):
    """Measurement of repeated calls.

    Attributes:
        seconds: median wall time.
        added_mb: largest peak memory of a call in MB, in addition to that in use before; None if the system does not
            tell.
        value: result of the last call.
    """

    seconds: float
    added_mb: float | None
    value: T


def measure(call: Callable[[], T], device: torch.device, repeats: int = 1) -> Measurement[T]:
    """Run ``call`` ``repeats`` times and measure it; on a GPU, including all work that it has queued."""
    seconds, added = [], []
    for _ in range(repeats):
        value = None  # frees the result of the previous run
        before = _start_memory(device)
        _wait(device)
        start = time.perf_counter()
        value = call()
        _wait(device)
        seconds.append(time.perf_counter() - start)
        added.append(_peak_mb(device, before))
    known = [mb for mb in added if mb is not None]
    return Measurement(statistics.median(seconds), max(known) if known else None, value)  # type: ignore[arg-type]


def size_mb(module: torch.nn.Module) -> float:
    """Return the size of a module's weights in MB."""
    return sum(p.numel() * p.element_size() for p in module.parameters()) / 2**20


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _start_memory(device: torch.device) -> float | None:
    """Reset the peak counter; returns the memory in use in MB."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device) / 2**20
    trim_heap()  # memory that the allocator kept from an earlier run would hide that of this one
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


@dataclass(frozen=True)
class MachineInfo:
    """Processor, GPU, number of threads, library versions and date of a measurement."""

    processor: str
    cores: int
    threads: int
    gpu: str
    torch_version: str
    transformers_version: str
    date: str

    @classmethod
    def here(cls, device: torch.device) -> MachineInfo:
        """Describe this machine as far as ``device`` uses it."""
        gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        return cls(
            processor=_processor(),
            cores=os.cpu_count() or 1,
            threads=torch.get_num_threads(),
            gpu=gpu,
            torch_version=torch.__version__,
            transformers_version=transformers.__version__,
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        )

    def describe(self) -> str:
        """Return the description as one line of text."""
        what = self.gpu or f"{self.processor}, {self.threads} of {self.cores} cores used"
        return f"{what}; torch {self.torch_version}, transformers {self.transformers_version}; {self.date}"

    def to_dict(self) -> dict[str, Any]:
        """Return the description as JSON values."""
        return asdict(self)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
