import os

import pytest

import acs_core.bench.busy as busy
from acs_core.errors import BenchError


def test_each_case_alone_and_beside_a_neighbour(monkeypatch):
    asked = []

    def seconds(model, threads, waiting, answers):
        asked.append((threads, waiting))
        return [0.3, 0.1, 0.2]

    monkeypatch.setattr(busy, "_seconds", seconds)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    rows = busy.busy_answers("any", 3)
    assert asked == [(1, "sleep"), (4, "spin"), (4, "sleep")] * 2
    assert [row.neighbours for row in rows] == [0, 0, 0, 1, 1, 1]
    assert {(row.median_ms, row.most_ms) for row in rows} == {(200.0, 300.0)}


def test_a_model_that_cannot_be_asked_is_named():
    with pytest.raises(BenchError, match="no-such-model could not be asked"):
        busy.busy_answers("no-such-model", 1)
