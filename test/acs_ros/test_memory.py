from __future__ import annotations

import ctypes
import subprocess
import sys
from types import SimpleNamespace

import pytest

from acs_ros.memory import Memory, measure_memory, resident_bytes


def test_host_memory_is_that_of_this_process():
    before = resident_bytes()
    held = b"x" * 50_000_000
    assert resident_bytes() - before > 0.8 * len(held)
    assert measure_memory().host_gb == pytest.approx(resident_bytes() / 1e9, rel=0.2)


@pytest.mark.parametrize(
    ("cuda", "gpu"),
    [
        (None, (None, None)),
        (SimpleNamespace(), (None, None)),
        (SimpleNamespace(is_initialized=lambda: False), (None, None)),
        (
            SimpleNamespace(
                is_initialized=lambda: True, mem_get_info=lambda: (6e9, 24e9), memory_reserved=lambda: 16e9
            ),
            (16.0, 0.75),
        ),
    ],
)
def test_a_gpu_is_asked_only_where_torch_uses_one(monkeypatch, cuda, gpu):
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace() if cuda is None else SimpleNamespace(cuda=cuda))
    found = measure_memory()
    assert (found.gpu_gb, found.gpu_share) == gpu and isinstance(found, Memory)


FRAMES = """
import resource, sys
from acs_ros.memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def frame():
    message = b"x" * 6_220_800
    image = b"y" + message
    return len(image) + len(message)
for _ in range(3):
    frame()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    frame()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc")
def test_the_memory_of_a_frame_serves_the_next():
    """Each frame was put on pages that the system had to clear first."""
    counted = {}
    for how in ("given back", "kept"):
        ran = subprocess.run([sys.executable, "-c", FRAMES, how], capture_output=True, text=True, check=True)
        counted[how] = int(ran.stdout)
    assert counted["kept"] < 50 < 50_000 < counted["given back"]
