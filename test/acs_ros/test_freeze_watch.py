"""Each case in a process of its own: it may end."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, time
from acs_ros.freeze_watch import FreezeWatch

def stands_still(milliseconds):
    ctypes.PyDLL(None).usleep(1000 * milliseconds)  # as rclpy's publish: no other Python runs meanwhile

with FreezeWatch({timeout}):
    {first}
{then}
print("went on")
"""


@pytest.mark.parametrize(
    ("timeout", "first", "then", "ends"),
    [
        (2.0, "stands_still(20_000)", "", True),
        (1.5, "[stands_still(100) for _ in range(20)]", "", False),  # each time others get their turn
        (1.5, "time.sleep(2.5)", "", False),
        (2.0, "pass", "stands_still(4000)", False),  # afterwards nobody watches
        (0.0, "stands_still(1500)", "", False),
    ],
)
def test_a_process_that_stands_still_ends_and_says_where(timeout, first, then, ends):
    code = SCRIPT.format(timeout=timeout, first=first, then=then)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == (1 if ends else 0), done.stderr
    assert ("Timeout" in done.stderr and "in stands_still" in done.stderr) == ends
    assert ("went on" in done.stdout) != ends
