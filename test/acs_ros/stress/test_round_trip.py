import os
import subprocess
import sys
from pathlib import Path

import pytest

from acs_ros.stress.round_trip import keep_cores_awake

linux = pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="needs Linux's SCHED_IDLE")


def spinners() -> list[int]:
    """Processes of the lowest priority among this one's children."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in children if os.sched_getscheduler(int(pid)) == os.SCHED_IDLE]


@linux
def test_a_spinner_a_core_at_the_lowest_priority_and_none_afterwards():
    with keep_cores_awake() as awake:
        assert awake
        while len(spinners()) < len(os.sched_getaffinity(0)):  # until each has begun
            pass
        assert sorted(core for pid in spinners() for core in os.sched_getaffinity(pid)) == sorted(
            os.sched_getaffinity(0)
        )
    assert spinners() == []


def test_nothing_is_started_where_it_is_not_wanted():
    with keep_cores_awake(wanted=False) as awake:
        assert not awake


@linux
def test_spinners_end_with_who_started_them():
    code = (
        "import os; from acs_ros.stress.round_trip import keep_cores_awake\n"
        "with keep_cores_awake(): os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=60)  # waits for all who hold it
    assert done.returncode == -9
