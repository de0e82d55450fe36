"""What acs-bench measures with an option on and off. Nothing is timed."""

import pytest

from acs_core.bench import options as module
from acs_core.bench.options import DOES_NOT_RUN, KERNEL, NO_GPU, NO_TRITON, OFF, ON, VISION, measure_options
from acs_core.bench.subject import load_subject
from acs_core.generation.vision_graph import RecordedTower

ORDER = [(KERNEL, ON), (KERNEL, OFF), (VISION, ON), (VISION, OFF)]


@pytest.fixture(scope="module")
def subject():
    return load_subject("tiny-internvl", None, 1, "cpu", "auto", (64, 64))


def notes(report):
    assert [(row.option, row.setting) for row in report.rows] == ORDER
    assert all((row.ms is None) == bool(row.note) for row in report.rows)
    return [row.note for row in report.rows]


def test_on_a_cpu_only_the_plain_ways_are_measured(subject):
    graphs = subject.lvlm.graphs
    graphs.kernel, graphs.vision = None, False
    assert notes(measure_options(subject, 2, 16, 1)) == [NO_GPU, "", NO_GPU, ""]
    assert (graphs.kernel, graphs.vision) == (None, False)
    graphs.vision = None


def test_where_steps_are_recorded_all_are(subject, monkeypatch):
    monkeypatch.setattr(module, "_records", lambda lvlm: True)
    monkeypatch.setattr(module, "attention_kernel", lambda lvlm: module)
    real, runs, steps = RecordedTower.run, [], []
    monkeypatch.setattr(RecordedTower, "run", lambda self, pixels: runs.append(1) or real(self, pixels))
    step = module._step_ms
    monkeypatch.setattr(module, "_step_ms", lambda *a: steps.append(subject.lvlm.graphs.kernel) or step(*a))
    assert notes(measure_options(subject, 2, 16, 1)) == [""] * 4
    assert steps == [True, False] and len(runs) == 2  # the one that is recorded, and the one that is measured
    assert not subject.lvlm.graphs.towers


def test_what_fell_back_has_no_number(subject, monkeypatch):
    monkeypatch.setattr(module, "_records", lambda lvlm: True)
    monkeypatch.setattr(module, "attention_kernel", lambda lvlm: module)

    def fall_back(*_):
        subject.lvlm.graphs.kernel = False
        return 1.0

    def fail(self, *_):
        raise RuntimeError("not permitted when stream is capturing")

    monkeypatch.setattr(module, "_step_ms", fall_back)
    monkeypatch.setattr(RecordedTower, "__init__", fail)
    assert notes(measure_options(subject, 2, 16, 1)) == [DOES_NOT_RUN, "", DOES_NOT_RUN, ""]


def test_without_triton_there_is_no_kernel(subject, monkeypatch):
    def missing(lvlm):
        raise ImportError("No module named 'triton'")

    monkeypatch.setattr(module, "_records", lambda lvlm: True)
    monkeypatch.setattr(module, "attention_kernel", missing)
    assert notes(measure_options(subject, 2, 16, 1)) == [NO_TRITON, "", "", ""]
