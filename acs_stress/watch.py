"""What a process holds of the machine while it runs: memory, file descriptors, threads."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

import psutil

MB = 1e6


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
