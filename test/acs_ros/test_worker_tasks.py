"""What is asked once goes before the newest jobs, and neither takes the other along when it is dropped."""

from __future__ import annotations

import pytest
from worker_parts import Bench


@pytest.fixture
def bench():
    made = Bench()
    yield made
    made.gate.set()
    assert made.worker.close(10)


class Errand:
    """A task that waits for ``gate``, and writes down what becomes of it."""

    def __init__(self, bench, name):
        self.bench, self.name, self.ended = bench, name, ""

    def run(self, should_stop):
        self.bench.started.append(self.name)
        while not self.bench.gate.wait(0.001):
            if should_stop():
                self.ended = "stopped"
                return
        self.ended = "done"

    def abandon(self, reason):
        self.ended = reason


def test_tasks_come_before_jobs_and_in_order(bench, until):
    bench.worker.submit("a")
    until(lambda: bench.started, "the first job")
    bench.worker.submit("b")
    errands = [Errand(bench, n) for n in ("one", "two")]
    for errand in errands:
        bench.worker.enqueue(errand)
    bench.gate.set()
    until(lambda: len(bench.delivered) == 2, "both jobs")
    assert bench.started == ["a", "one", "two", "b"]
    assert [e.ended for e in errands] == ["done", "done"]


def test_a_task_does_not_wait_for_the_pause(bench, until):
    bench.gate.set()
    bench.interval = 1000.0
    bench.worker.submit("a")
    until(lambda: bench.delivered, "the first answer")
    errand = Errand(bench, "one")
    bench.worker.enqueue(errand)
    until(lambda: errand.ended, "the task")
    assert errand.ended == "done"


def test_withdrawn_tasks_are_not_begun_or_stop(bench, until):
    running, waiting = Errand(bench, "one"), Errand(bench, "two")
    bench.worker.enqueue(running)
    until(lambda: bench.started, "the task")
    bench.worker.enqueue(waiting)
    assert bench.worker.withdraw(waiting) is True
    assert bench.worker.withdraw(running) is False
    until(lambda: running.ended, "the end")
    until(lambda: not bench.worker.busy, "rest")
    assert (running.ended, waiting.ended, bench.started) == ("stopped", "", ["one"])


def test_dropping_jobs_leaves_tasks_and_the_other_way_round(bench, until):
    errand = Errand(bench, "one")
    bench.worker.enqueue(errand)
    until(lambda: bench.started, "the task")
    late = Errand(bench, "late")
    bench.worker.enqueue(late)
    bench.worker.submit("a")
    bench.worker.drop()
    assert errand.ended == "" and bench.worker.busy
    bench.worker.submit("b")
    bench.worker.drop_tasks("no time")
    assert late.ended == "no time"
    until(lambda: errand.ended, "the end of the one that runs")
    bench.gate.set()
    until(lambda: bench.delivered, "the job")
    assert bench.started == ["one", "b"] and errand.ended == "stopped"
