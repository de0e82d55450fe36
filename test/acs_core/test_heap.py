"""The heap's settings: what they do is tested where they are used (tiny's CPU training, the node's memory)."""

import ctypes
import subprocess
import sys

import pytest

from acs_core import heap

# In a process of its own: the settings stay for good. By default pieces of this size have pages of their own, which go
# back at once.
WAITS = """
from pathlib import Path
from acs_core.heap import M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, trim_heap, tune_heap
resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * 4096
assert tune_heap([(M_MMAP_THRESHOLD, 32 << 20), (M_TRIM_THRESHOLD, 512 << 20)])
held = [b"x" * (500_000 + k) for k in range(200)]
full = resident()
del held
kept = resident()
trim_heap()
print(full - kept, kept - resident())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="settings of glibc")
def test_freed_memory_waits_for_the_trim():
    done = subprocess.run([sys.executable, "-c", WAITS], capture_output=True, text=True, timeout=120, check=True)
    at_once, at_trim = map(int, done.stdout.split())
    assert at_once < 10_000_000 and at_trim > 80_000_000


def test_another_c_library_has_no_settings(monkeypatch):
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: object())
    assert not heap.tune_heap([(heap.M_TRIM_THRESHOLD, 1)])
    heap.trim_heap()
