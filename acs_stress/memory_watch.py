"""What a process holds and uses while something happens to it."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType

from acs_stress.judging import Held

PERIOD_S = 0.1
MB = 1e6


def memory_mb(pid: int) -> tuple[float, float]:
    """Resident memory of the process in MB, and how much of that is shared memory (Linux).

    Raises:
        OSError: the process is gone.
    """
    found = {"VmRSS": 0.0, "RssShmem": 0.0}
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        name, _, rest = line.partition(":")
        if name in found:
            found[name] = int(rest.split()[0]) * 1024 / MB
    return found["VmRSS"], found["RssShmem"]


def cpu_seconds(pid: int) -> float:
    """Processor time that the process has used since its start (Linux).

    Raises:
        OSError: it is gone.
    """
    after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    user, system = int(after_name[11]), int(after_name[12])  # proc(5): utime and stime
    return (user + system) / os.sysconf("SC_CLK_TCK")


def machine_seconds() -> float:
    """Processor time that everybody on this machine has used since it started (Linux)."""
    fields = Path("/proc/stat").read_text(encoding="utf-8").split(maxsplit=9)[1:9]
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts, stolen = map(int, fields)  # proc(5)
    return (user + nice + system + interrupts + soft_interrupts + stolen) / os.sysconf("SC_CLK_TCK")


class MemoryWatch:
    """Looks at the process ``pid`` from entering to leaving; a context manager."""

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
    def held(self) -> Held:
        """What was seen so far."""
        return Held(self._first[0], self._peak, self._last[0], self._first[1], self._shared_peak)

    def _watch(self) -> None:
        while not self._done.wait(PERIOD_S):
            try:
                self._last = memory_mb(self._pid)
            except OSError:
                return
            self._peak = max(self._peak, self._last[0])
            self._shared_peak = max(self._shared_peak, self._last[1])
