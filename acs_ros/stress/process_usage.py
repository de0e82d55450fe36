"""Memory, file descriptors, threads and processor time of a process."""

from __future__ import annotations

import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from acs_ros.stress.load_checks import MemoryUsage

PERIOD_S = 0.1
MB = 1e6


def memory_mb(pid: int) -> tuple[float, float]:
    """Return the resident memory of the process in MB, and the shared memory in it (Linux).

    Raises:
        OSError: the process has ended.
    """
    found = {"VmRSS": 0.0, "RssShmem": 0.0}
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        name, _, rest = line.partition(":")
        if name in found:
            found[name] = int(rest.split()[0]) * 1024 / MB
    return found["VmRSS"], found["RssShmem"]


def cpu_seconds(pid: int) -> float:
    """Return the processor time of the process since its start in seconds (Linux).

    Raises:
        OSError: the process has ended.
    """
    after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    user, system = int(after_name[11]), int(after_name[12])  # proc(5): utime and stime
    return (user + system) / os.sysconf("SC_CLK_TCK")


def machine_seconds() -> float:
    """Return the processor time of all processes since the machine's start in seconds (Linux)."""
    fields = Path("/proc/stat").read_text(encoding="utf-8").split(maxsplit=9)[1:9]
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts, stolen = map(int, fields)  # proc(5)
    return (user + nice + system + interrupts + soft_interrupts + stolen) / os.sysconf("SC_CLK_TCK")


class MemoryWatch:
    """Records the memory of the process ``pid`` inside a ``with`` block, every PERIOD_S seconds."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)
        self._first = self._last = memory_mb(pid)
        self._peak, self._shared_peak = self._first

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    @property
    def held(self) -> MemoryUsage:
        """Memory recorded so far."""
        return MemoryUsage(self._first[0], self._peak, self._last[0], self._first[1], self._shared_peak)

    def _watch(self) -> None:
        while not self._done.wait(PERIOD_S):
            try:
                self._last = memory_mb(self._pid)
            except OSError:
                return
            self._peak = max(self._peak, self._last[0])
            self._shared_peak = max(self._shared_peak, self._last[1])


@dataclass(frozen=True)
class ProcessSample:
    """Resources of a process at one moment.

    Attributes:
        rss_mb: resident memory in MB.
        fds: number of file descriptors.
        threads: number of threads.
        cpu_s: processor time since its start in seconds.
        load: the machine's load average over one minute.
    """

    rss_mb: float
    fds: int
    threads: int
    cpu_s: float
    load: float

    def to_dict(self) -> dict[str, Any]:
        """Return the sample as JSON values."""
        return asdict(self)


def sample_process(pid: int) -> ProcessSample:
    """Measure the process ``pid`` now.

    Raises:
        psutil.Error: the process has ended.
    """
    process = psutil.Process(pid)
    with process.oneshot():
        times = process.cpu_times()
        rss, threads = process.memory_info().rss, process.num_threads()
    return ProcessSample(rss / MB, process.num_fds(), threads, times.user + times.system, os.getloadavg()[0])
