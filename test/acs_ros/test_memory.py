from __future__ import annotations

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
