"""What a process holds of the machine while it runs: memory, file descriptors, threads."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import psutil

MB = 1e6
_WORK_SIDE = 192  # of the square matrices that the machine's speed is tried with
_WORK_TIMES = 20


@dataclass(frozen=True)
class Sample:
    """One look at a process. ``load``: the machine's load average over a minute."""

    rss_mb: float
    fds: int
    threads: int
    cpu_s: float  # used since its start
    load: float

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        return asdict(self)


def look_at(pid: int) -> Sample:
    """What the process ``pid`` holds now.

    Raises:
        psutil.Error: it is gone.
    """
    process = psutil.Process(pid)
    with process.oneshot():
        times = process.cpu_times()
        rss, threads = process.memory_info().rss, process.num_threads()
    return Sample(rss / MB, process.num_fds(), threads, times.user + times.system, os.getloadavg()[0])


def work_ms() -> float:
    """How many milliseconds a fixed piece of work takes just now: what else the machine does shows in it."""
    square: np.ndarray = np.ones((_WORK_SIDE, _WORK_SIDE), np.float32)
    began = time.perf_counter()
    for _ in range(_WORK_TIMES):
        square = square @ square / _WORK_SIDE
    return (time.perf_counter() - began) * 1e3
