from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool

from acs_core.geometry import Box
from acs_core.types import ABSENT, CUT_OFF, EMPTY, UNPARSEABLE, Candidate, Response, ScoreKind
from acs_ros.diagnostics.statistics import FATES, WINDOW_S, NodeStatistics, percentile

CANDIDATE = Candidate(Box(1, 2, 4, 5), "key", 0, 0, (1, 3, 5, 7))


class SteppedClock:
    def __init__(self) -> None:
        self.now = 5.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return SteppedClock()


@pytest.fixture
def statistics(clock):
    return NodeStatistics(clock)


def test_it_counts_and_remembers(statistics, result):
    statistics.image_came("truncated")
    statistics.image_came()
    statistics.failure("out of memory")
    statistics.work_began()
    assert statistics.snapshot().working_since == 5.0
    statistics.work_ended()
    statistics.results_sent([result("key", reason="nothing there"), result("mug")], 7.0)
    facts = statistics.snapshot()
    assert (facts.images, facts.bad_images, facts.failed, facts.answered, facts.abstained) == (2, 1, 1, 2, 1)
    assert (facts.last_image_problem, facts.last_failure) == ("", "")
    assert facts.last_abstention == "'key': nothing there"
    assert (facts.last_image, facts.last_latency_ms, facts.working_since) == (5.0, 7.0, None)
    statistics.results_sent([result("key")], 8.0)
    assert statistics.snapshot().last_abstention == "" and statistics.snapshot().abstained == 1


def test_it_has_the_picture_that_the_model_saw(statistics, result):
    statistics.results_sent([replace(result("key"), input_size=(1288, 728), image_tokens=1196)], 7.0)
    assert statistics.snapshot().model_input == "1288 x 728 pixels, 1196 image tokens"
    statistics.results_sent([], 7.0)
    assert statistics.snapshot().model_input == "1288 x 728 pixels, 1196 image tokens"
    statistics.results_sent([result("key")], 7.0)
    assert statistics.snapshot().model_input == ""


@pytest.mark.parametrize(
    ("changes", "doubtful"),
    [
        ({"responses": (Response("[]", 0, True, ABSENT), Response("?", 0, True, UNPARSEABLE))}, False),
        ({"responses": (Response("?", 0, True, UNPARSEABLE), Response("", 0, True, EMPTY))}, True),
        ({"responses": (Response("[1", 0, False, CUT_OFF),)}, True),
        ({"responses": (Response("[..]", 1, True),), "score_kind": ScoreKind.CALIBRATED}, False),
        ({"score_kind": ScoreKind.NONE, "candidates": (CANDIDATE,)}, True),
        ({"responses": ()}, False),
    ],
)
def test_an_abstention_is_told_apart_from_an_answer_that_could_not_be_used(statistics, result, changes, doubtful):
    statistics.results_sent([replace(result("key", reason="why"), **changes)], 1.0)
    facts = statistics.snapshot()
    assert (facts.answer_problem, facts.last_abstention) == (("'key': why", "") if doubtful else ("", "'key': why"))
    statistics.results_sent([result("key")], 1.0)
    assert (statistics.snapshot().answer_problem, statistics.snapshot().last_abstention) == ("", "")


def test_problems_are_those_of_their_camera(statistics):
    statistics.image_came("truncated", "left")
    statistics.image_came("", "right")
    statistics.set_camera("right", depth="no depth image")
    facts = statistics.snapshot()
    assert (facts.camera("left").image, facts.camera("right").image, facts.camera("up").image) == ("truncated", "", "")
    assert (facts.last_image_problem, facts.depth_problem) == ("left: truncated", "right: no depth image")
    statistics.image_begins("left")
    assert statistics.snapshot().last_image_problem == ""
    statistics.new_activation()
    assert statistics.snapshot().depth_problem == ""


def test_an_absent_object_is_no_unparseable_answer(statistics, result):
    responses = (Response("[]", 0, True, ABSENT), Response("?", 0, True, "no box"), Response("[..]", 1, True))
    statistics.results_sent([replace(result("key"), responses=responses)], 1.0)
    facts = statistics.snapshot()
    assert (facts.responses, facts.unparseable) == (3, 1)
    assert statistics.rates().unparseable_share == pytest.approx(1 / 3)


def test_rates_are_those_of_the_last_seconds_and_the_slowest_camera(statistics, clock, result):
    for i in range(100):
        clock.now = 5.0 + 0.1 * (i + 1)
        statistics.image_came("", "left")
        if i % 2:
            statistics.image_came("", "right")
        if i % 10 == 0:
            statistics.results_sent([result("key"), result("mug")], float(i))
    rates = statistics.rates(["left", "right"])
    assert rates.input_hz == pytest.approx(5.0)
    assert rates.answer_hz == pytest.approx(1.0)  # frames, not phrases
    assert (rates.latency_p50_ms, rates.latency_p95_ms) == (40.0, 90.0)
    clock.now += 2 * WINDOW_S
    assert statistics.rates(["left"]).input_hz == 0.0
    assert statistics.last_image_of("left") == 15.0 and statistics.last_image_of("up") is None


def test_a_new_activation_keeps_the_counters_and_nothing_else(statistics, result):
    statistics.image_came("truncated")
    statistics.results_sent([result("key")], 3.0)
    statistics.new_activation()
    facts = statistics.snapshot()
    assert (facts.images, facts.last_image, facts.last_image_problem) == (1, None, "")
    assert statistics.rates().latency_p50_ms is None and statistics.last_image_of("") is None


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, None), ([3.0], 0.95, 3.0), ([1.0, 2.0], 0.5, 1.0), ([1.0, 2.0, 3.0], 0.5, 2.0), ([1.0, 2.0], 0.95, 2.0)],
)
def test_percentiles(values, share, expected):
    assert percentile(values, share) == expected


def test_counting_needs_no_torch():
    code = (
        "import sys; from acs_core.types import ABSENT; from acs_ros.diagnostics.statistics import NodeStatistics\n"
        "NodeStatistics().results_sent([], 1.0); print('torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["False"]


def fates(rig):
    """What became of the images so far, less what did not happen."""
    facts = rig.node.statistics.snapshot()
    counted = {name: getattr(facts, name) for name in FATES}
    assert sum(counted.values()) == facts.images
    return {name: count for name, count in counted.items() if count}


def send(rig, until, msg):
    """Publish an image and wait until it is counted."""
    seen = rig.node.statistics.snapshot().images
    rig.images.publish(msg)
    until(lambda: rig.node.statistics.snapshot().images > seen, "the frame")


def at_rest(rig, until):
    worker = rig.node.query_manager._worker
    until(lambda: not (worker._waiting or worker.busy), "the model's rest")


def test_images_of_every_fate_add_up(rig, grounder, image, until):
    send(rig, until, image(stamp=1))
    rig.ask("key")
    broken = image(stamp=2)
    broken.step = 1
    send(rig, until, broken)
    grounder.error = RuntimeError("broken")
    send(rig, until, image(stamp=3))
    at_rest(rig, until)
    grounder.error = None
    grounder.gate.clear()
    send(rig, until, image(stamp=4))
    until(lambda: grounder.running, "the model at work")
    for stamp in (5, 6):
        send(rig, until, image(stamp=stamp))
    grounder.gate.set()
    until(lambda: len(rig.detections) == 2, "two answers")
    at_rest(rig, until)
    assert fates(rig) == {
        "images_without_query": 1,
        "bad_images": 1,
        "failed": 1,
        "replaced": 1,
        "frames_answered": 2,
    }
    assert rig.status()[2]["frames_answered"] == "2"


def test_a_pause_drops_what_waits_and_what_is_at_work(rig, grounder, image, until):
    rig.ask("key")
    grounder.gate.clear()
    send(rig, until, image(stamp=1))
    until(lambda: grounder.running, "the model at work")
    send(rig, until, image(stamp=2))
    assert rig.call(SetBool, "pause", data=True).success
    at_rest(rig, until)
    assert fates(rig) == {"dropped": 2}


def test_changed_queries_begin_a_frame_again_or_leave_it_to_a_newer_one(rig, grounder, image, until):
    rig.ask("key")
    grounder.gate.clear()
    send(rig, until, image(stamp=1))
    until(lambda: grounder.running, "the model at work")
    rig.ask("mug")
    until(lambda: len(grounder.calls) == 2, "the frame begun again")
    send(rig, until, image(stamp=2))
    rig.ask("cup")
    grounder.gate.set()
    until(lambda: rig.detections, "an answer")
    at_rest(rig, until)
    assert [d.header.stamp.sec for d in rig.detections] == [2]
    assert fates(rig) == {"dropped": 1, "frames_answered": 1}
    rig.ask("")
    assert fates(rig) == {"dropped": 1, "frames_answered": 1}


def test_an_answer_that_cannot_be_sent_is_a_failure_only(rig, image, until, monkeypatch):
    rig.ask("key")
    monkeypatch.setattr(rig.node.cameras, "publish", lambda answer: 1 / 0)
    send(rig, until, image())
    at_rest(rig, until)
    assert fates(rig) == {"failed": 1}


def test_on_demand_the_frames_that_nobody_asked_for_are_counted(rig, image, until):
    rig.ask("key")
    # What is already on its way when the camera is not wanted any more.
    (outcome,) = rig.node.set_parameters([Parameter("mode", value="on_demand")])
    assert outcome.successful
    camera = rig.node.cameras._cameras[""]
    rig.node.query_manager._due.clear()
    camera._on_image(image(stamp=1))
    assert fates(rig) == {"images_unasked": 1}


def test_a_frame_that_comes_after_the_pause_is_counted(rig, image):
    rig.ask("key")
    rig.node.query_manager.hold(True)
    rig.node.cameras._cameras[""]._on_image(image(stamp=1))
    assert fates(rig) == {"images_unasked": 1}
