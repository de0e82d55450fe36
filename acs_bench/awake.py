"""Keeps the processor awake while something that mostly waits is measured."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# At SCHED_IDLE it runs only where nothing else wants to, so it takes time from nobody; it ends with its parent.
_SPIN = """
import os
os.sched_setaffinity(0, {%d})
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
while os.getppid() == %d:
    for _ in range(1_000_000):
        pass
"""


@contextmanager
def kept_awake(wanted: bool = True) -> Iterator[bool]:
    """While it lasts, each core that this process may use has something to do of the lowest priority, so that none goes
    to sleep. On a virtual machine waking one up can take milliseconds, more than what is measured. Linux only; yields
    whether it is done."""
    if not (wanted and hasattr(os, "SCHED_IDLE")):
        yield False
        return
    spinners = [
        subprocess.Popen([sys.executable, "-c", _SPIN % (core, os.getpid())]) for core in os.sched_getaffinity(0)
    ]
    try:
        yield True
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()
