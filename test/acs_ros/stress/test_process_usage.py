from __future__ import annotations

import os
import time

import pytest

from acs_ros.stress.process_usage import MemoryWatch, cpu_seconds, machine_seconds, memory_mb

TICK_S = 1 / os.sysconf("SC_CLK_TCK")  # what the kernel counts in


def test_the_peak_is_seen_and_what_is_left(until):
    with MemoryWatch(os.getpid()) as watch:
        held = b"x" * 80_000_000
        until(lambda: watch.held.peak - watch.held.before > 60, "the peak to be seen")
        del held
        until(lambda: watch.held.after < watch.held.peak - 60, "the end of it to be seen")
    assert watch.held.shared_peak >= watch.held.shared_before >= 0


def test_what_a_process_holds_and_uses():
    resident, shared = memory_mb(os.getpid())
    assert 0 <= shared < resident
    assert machine_seconds() > cpu_seconds(os.getpid())
    before, used, after = time.process_time(), cpu_seconds(os.getpid()), time.process_time()
    # user and system time are each told in whole ticks
    assert before - 2 * TICK_S <= used <= after + 2 * TICK_S


def test_a_process_that_is_gone_is_an_error():
    with pytest.raises(OSError, match="4194305"):
        memory_mb(4_194_305)  # above the largest process id of Linux
