from __future__ import annotations

import mmap
import subprocess
import sys
from types import SimpleNamespace

import pytest

from acs_ros.diagnostics.memory import Memory, measure_memory, resident_bytes
from acs_ros.node import grounding_node


def test_host_memory_is_that_of_this_process():
    before, size = resident_bytes(), 50_000_000
    with mmap.mmap(-1, size) as held:  # not of the heap, which may have room that is counted already
        held.write(b"x" * size)
        assert resident_bytes() - before > 0.8 * size
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


def test_freed_frames_wait_for_the_next_ones_and_go_back_to_the_system_at_a_trim():
    """In a process of its own: the settings stay for good. Frames of many sizes, freed in another order."""
    code = """
import resource, sys, threading
from acs_core.heap import trim_heap
from acs_ros.diagnostics.memory import resident_bytes, steady_heap

if not steady_heap():
    sys.exit(77)

def work(seed):
    kept = [bytearray(6_000_000 + 1000 * (seed + k)) for k in range(4)]
    small = [[bytearray(5000) for _ in range(100)] for frame in kept]
    del kept[::2], small

def frame_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(6_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

bytearray(6_000_000)
print(frame_faults())
before = resident_bytes()
for turn in range(30):
    threads = [threading.Thread(target=work, args=(turn * k,)) for k in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
trim_heap()
print((resident_bytes() - before) / 1e6)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    if done.returncode == 77:
        pytest.skip("no glibc")
    assert done.returncode == 0, done.stderr
    faults, grown_mb = map(float, done.stdout.split())
    assert faults < 100, "a frame takes 1465 pages; those of the one before should serve it"
    assert grown_mb < 10


def test_a_running_node_trims_its_heap(monkeypatch, make_rig, grounder, until):
    trims = []
    monkeypatch.setattr(grounding_node, "TRIM_PERIOD_S", 0.02)
    monkeypatch.setattr(grounding_node, "trim_heap", lambda: trims.append(1))
    make_rig(lambda settings: grounder)
    assert until(lambda: len(trims) > 2, "the heap to be trimmed")
