from __future__ import annotations

import numpy as np
import pytest
from worker_parts import WorkerBench

from acs_core.geometry import Box
from acs_core.types import SamplingConfig
from acs_ros.node.inference_worker import InferenceOptions, ask


@pytest.fixture
def bench():
    made = WorkerBench()
    yield made
    made.gate.set()
    assert made.worker.close(10)


def test_jobs_are_done_one_after_the_other(bench, until):
    bench.gate.set()
    for job in ("a", "b"):
        bench.worker.submit(job)
        until(lambda job=job: bench.delivered and bench.delivered[-1][0] == job, job)
    assert bench.delivered == [("a", "A"), ("b", "B")]


def test_the_newest_waiting_job_wins(bench, until):
    assert bench.worker.submit("a") is False
    until(lambda: bench.started, "the first job")
    assert [bench.worker.submit(j) for j in "bcd"] == [False, True, True]
    bench.gate.set()
    until(lambda: len(bench.delivered) == 2, "two answers")
    assert [j for j, _ in bench.delivered] == ["a", "d"]


@pytest.mark.parametrize("obedient", [True, False])
def test_nothing_dropped_is_delivered(bench, until, obedient):
    bench.obedient = obedient
    bench.worker.submit("a")
    until(lambda: bench.started, "the first job")
    bench.worker.submit("b")
    bench.worker.drop()
    bench.worker.submit("c")
    bench.gate.set()
    until(lambda: bench.delivered, "an answer")
    assert bench.delivered == [("c", "C")] and not bench.failures


def test_restart_runs_the_same_job_again(bench, until):
    bench.worker.submit("a")
    until(lambda: bench.started, "the job")
    assert bench.worker.restart() is True
    until(lambda: bench.started == ["a", "a"], "the second run")
    bench.gate.set()
    until(lambda: bench.delivered, "an answer")
    assert bench.delivered == [("a", "A")]


def test_restart_prefers_a_newer_job(bench, until):
    bench.worker.submit("a")
    until(lambda: bench.started, "the job")
    bench.worker.submit("b")
    bench.worker.restart()
    bench.gate.set()
    until(lambda: bench.delivered, "an answer")
    assert bench.delivered == [("b", "B")]


def test_restart_does_not_bring_back_a_dropped_job(bench, until):
    bench.obedient = False
    bench.worker.submit("a")
    until(lambda: bench.started, "the job")
    bench.worker.drop()
    assert bench.worker.restart() is False
    bench.gate.set()
    until(lambda: not bench.worker.busy, "rest")
    assert bench.started == ["a"] and not bench.delivered


@pytest.mark.parametrize(
    ("what", "dropped", "delivered"),
    [
        ("drop", ["b", "a"], ["c"]),  # the one at work is given up when it ends
        ("restart", ["a"], ["b", "c"]),  # a newer one waits, so it is not begun again
        ("nothing", [], ["a", "b", "c"]),
    ],
)
def test_every_job_is_delivered_or_dropped_and_only_once(bench, until, what, dropped, delivered):
    bench.worker.submit("a", "left")
    until(lambda: bench.started, "the first job")
    bench.worker.submit("b", "left")
    if what != "nothing":
        getattr(bench.worker, what)()
    bench.worker.submit("c", "right")
    bench.gate.set()
    until(lambda: len(bench.delivered) + len(bench.dropped) == 3, "all jobs to end")
    assert bench.dropped == dropped and [job for job, _ in bench.delivered] == delivered


def test_a_job_that_is_begun_again_is_not_dropped_unless_the_second_time(bench, until):
    bench.worker.submit("a")
    until(lambda: bench.started, "the job")
    bench.worker.restart()
    until(lambda: len(bench.started) == 2, "the second run")
    assert not bench.dropped
    bench.worker.drop()
    until(lambda: not bench.worker.busy, "rest")
    assert bench.dropped == ["a"] and not bench.delivered


def test_a_job_that_waits_to_be_begun_again_is_dropped_once(bench, until):
    bench.obedient = False
    bench.worker.submit("a")
    until(lambda: bench.started, "the job")
    bench.worker.restart()
    bench.worker.drop()
    bench.gate.set()
    until(lambda: not bench.worker.busy, "rest")
    assert bench.dropped == ["a"] and not bench.delivered


def test_restart_without_work_does_nothing(bench):
    assert bench.worker.restart() is False and bench.worker.busy is False


def test_errors_are_handed_on_and_the_next_job_runs(bench, until):
    bench.gate.set()
    bench.worker.submit("bad one")
    until(lambda: bench.failures, "the failure")
    bench.worker.submit("a")
    until(lambda: bench.delivered, "an answer")
    assert bench.failures == [("bad one", "cannot do bad one")]


def test_an_answer_that_cannot_be_delivered_is_a_failure(bench, until):
    bench.gate.set()
    bench.deliver_error = RuntimeError("no publisher")
    bench.worker.submit("a")
    until(lambda: bench.failures, "the failure")
    assert bench.failures == [("a", "no publisher")]
    bench.deliver_error = None
    bench.worker.submit("b")
    until(lambda: bench.delivered, "an answer")


@pytest.mark.parametrize(("job", "deliver_error"), [("bad one", None), ("a", RuntimeError("no publisher"))])
def test_a_report_that_fails_is_logged_and_the_next_job_runs(bench, until, caplog, job, deliver_error):
    bench.gate.set()
    bench.report_error, bench.deliver_error = ValueError("no logger"), deliver_error
    bench.worker.submit(job)
    until(lambda: "no logger" in caplog.text, "the log")
    bench.deliver_error = None
    bench.worker.submit("b")
    until(lambda: bench.delivered, "an answer")
    assert bench.delivered == [("b", "B")]


def test_the_pause_between_starts_ends_with_the_newest_job(bench, until):
    bench.gate.set()
    bench.interval = 1000.0
    bench.worker.submit("a")
    until(lambda: bench.delivered, "the first answer, which waits for nothing")
    for job in "bcd":
        looks = bench.looks
        assert bench.worker.submit(job) is (job != "b")
        until(lambda looks=looks: bench.looks > looks, "the worker's look at the pause")
    assert bench.started == ["a"]
    bench.interval = 0.0
    until(lambda: len(bench.delivered) == 2, "the second answer")
    assert bench.started == ["a", "d"]


def test_dropping_and_closing_do_not_wait_for_the_pause(bench, until):
    bench.gate.set()
    bench.interval = 1000.0
    bench.worker.submit("a")
    until(lambda: bench.delivered, "the first answer")
    bench.worker.submit("b")
    bench.worker.drop()
    assert bench.worker.submit("c") is False
    assert bench.worker.close(60) is True
    assert bench.started == ["a"]


def test_close_tells_whether_the_job_stopped(bench, until):
    bench.obedient = False
    bench.worker.submit("a")
    until(lambda: bench.started, "the job")
    assert bench.worker.close(0.01) is False
    with pytest.raises(RuntimeError, match="closed"):
        bench.worker.submit("b")
    bench.gate.set()
    assert bench.worker.close(10) is True
    assert not bench.delivered


def test_streams_keep_their_own_newest_and_take_turns(bench, until):
    bench.worker.submit("l1", "left")
    until(lambda: bench.started, "the first job")
    handed = [("l2", "left"), ("r1", "right"), ("l3", "left"), ("r2", "right")]
    assert [bench.worker.submit(j, s) for j, s in handed] == [False, False, True, True]
    bench.gate.set()
    until(lambda: len(bench.delivered) == 3, "all")
    assert bench.started == ["l1", "l3", "r2"]


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


IMAGE = np.zeros((6, 8, 3), np.uint8)


class Noting:
    """A grounder that notes what it was asked."""

    def __init__(self, result):
        self.result, self.asked = result, []

    def ground_many(self, image, phrases, **options):
        self.asked.append((image, tuple(phrases), options))
        return tuple(self.result(p) for p in phrases)


@pytest.mark.parametrize(("deadline", "expected"), [(0.0, None), (2.0, 2000.0)])
def test_a_question_is_one_call_with_all_that_it_says(result, deadline, expected):
    grounder = Noting(result)
    sampling = SamplingConfig(3, auto=True)
    question = InferenceOptions(
        ("key", "mug"), sampling, True, 0.5, 3, deadline, True, True, False, Box(1, 2, 30, 40), 0.9, False, True
    )
    stop, stage = (lambda: False), (lambda name: None)
    assert [r.phrase for r in ask(grounder, IMAGE, question, stop, stage)] == ["key", "mug"]
    ((image, phrases, options),) = grounder.asked
    assert image is IMAGE and phrases == ("key", "mug")
    assert options == {
        "sampling": sampling,
        "multiple": True,
        "min_score": 0.5,
        "min_precision": 0.9,
        "min_votes": 3,
        "check_labels": False,
        "whole_responses": True,
        "deadline_ms": expected,
        "with_attention": True,
        "keep_image": False,
        "second_look": True,
        "region": Box(1, 2, 30, 40),
        "keep_prefix": False,
        "should_stop": stop,
        "on_stage": stage,
    }
