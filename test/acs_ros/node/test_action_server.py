from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest
from acs_msgs.srv import ListQueries
from action_msgs.msg import GoalStatus
from sensor_msgs.msg import CompressedImage, RegionOfInterest
from std_srvs.srv import SetBool

from acs_core.geometry import Box
from acs_ros.conversions.images import encode_jpeg


class Asking:
    """A goal that was sent: its feedback so far, its result when there is one."""

    def __init__(self, rig, until, **fields):
        self.stages, self.until = [], until
        sent = rig.send_goal(feedback_callback=lambda m: self.stages.append(m.feedback.stage), **fields)
        until(sent.done, "the acceptance")
        self.handle = sent.result()
        assert self.handle.accepted
        self._result = self.handle.get_result_async()
        # The acceptance is sent before the node has the goal.
        until(lambda: self.stages or self.done, "the goal to wait, or to be refused")

    @property
    def done(self):
        return self._result.done()

    def end(self):
        """Status and result."""
        self.until(self._result.done, "the result")
        answer = self._result.result()
        return answer.status, answer.result


@pytest.fixture
def ask_in(until):
    def begin(rig):
        until(rig.ground.server_is_ready, "the action")
        return lambda **fields: Asking(rig, until, **fields)

    return begin


@pytest.fixture
def ask(rig, ask_in):
    return ask_in(rig)


def test_a_goal_is_answered_about_the_next_frame_with_feedback(rig, grounder, image, ask, until):
    grounder.gate.clear()
    goal = ask(phrase=" the  key ")
    until(lambda: goal.stages, "the first feedback")
    rig.images.publish(image(stamp=5))
    until(lambda: len(goal.stages) == 4, "all feedback")  # rclpy drops what comes after the result
    grounder.gate.set()
    status, result = goal.end()
    assert status == GoalStatus.STATUS_SUCCEEDED and result.message == ""
    assert result.detections.header.stamp.sec == result.candidates.header.stamp.sec == 5
    assert result.detections.detections[0].results[0].hypothesis.class_id == result.candidates.phrase == "the key"
    assert goal.stages == ["waiting for an image", "queued", "prompt", "sampling"]
    until(lambda: rig.detections, "the same answer on the topic")
    assert rig.detections[0] == result.detections


@pytest.mark.parametrize("compressed", [False, True])
def test_a_goal_may_bring_its_own_picture(rig, grounder, image, ask, compressed):
    own = image(130, stamp=9, width=40, height=30)
    if compressed:
        fields = {"compressed_image": encode_jpeg(np.full((30, 40, 3), 130, np.uint8), own.header)}
    else:
        fields = {"image": own}
    status, result = ask(phrase="key", **fields).end()
    assert status == GoalStatus.STATUS_SUCCEEDED and result.detections.header.stamp.sec == 9
    asked = grounder.calls[0][0]
    assert asked.shape == (30, 40, 3) and abs(int(asked.mean()) - 130) <= 2
    assert not rig.detections, "a foreign picture's boxes do not belong on the camera's topic"


def test_what_a_goal_asks_for_reaches_the_engine(rig, grounder, image, ask, monkeypatch):
    still = SimpleNamespace(monotonic=lambda: 5.0, sleep=time.sleep)
    monkeypatch.setattr("acs_ros.node.ground_goal.time", still)
    ask(phrase="key", image=image(), multiple=True, samples=3, min_score=0.25, deadline=3000.0).end()
    ask(phrase="key", image=image()).end()
    first, second = (options for _, _, options in grounder.calls)
    assert (first["multiple"], first["sampling"].num_samples, first["min_score"]) == (True, 3, 0.25)
    assert first["deadline_ms"] == 3_000_000 and first["keep_prefix"]
    assert (second["multiple"], second["sampling"].num_samples, second["min_score"]) == (False, 10, 0.0)
    assert second["deadline_ms"] is None


def test_a_goal_may_name_a_region(rig, grounder, image, ask):
    region = RegionOfInterest(x_offset=4, y_offset=2, width=20, height=10)
    status, _ = ask(phrase="key", image=image(width=40, height=30), region=region).end()
    ask(phrase="key", image=image(width=40, height=30)).end()
    assert status == GoalStatus.STATUS_SUCCEEDED
    assert [options["region"] for _, _, options in grounder.calls] == [Box(4, 2, 24, 12), None]
    assert [shown.shape for shown, _, _ in grounder.calls] == [(30, 40, 3)] * 2, "the library crops"


@pytest.mark.parametrize("obedient", [True, False])
def test_cancelling_a_running_goal_is_prompt(rig, grounder, image, ask, until, obedient):
    grounder.obedient = obedient
    grounder.gate.clear()
    goal = ask(phrase="key", image=image())
    until(lambda: grounder.running, "the model at work")
    goal.handle.cancel_goal_async()
    status, result = goal.end()
    assert status == GoalStatus.STATUS_CANCELED and result.message == "canceled"
    assert grounder.running or obedient
    grounder.gate.set()
    until(lambda: not grounder.running, "the model's rest")
    assert ask(phrase="mug", image=image()).end()[0] == GoalStatus.STATUS_SUCCEEDED
    assert rig.call(ListQueries, "list_queries").goals == 0


@pytest.mark.parametrize("waits_for", ["its turn", "a frame"])
def test_cancelling_a_waiting_goal_is_prompt(rig, grounder, image, ask, until, waits_for):
    grounder.gate.clear()
    first = ask(phrase="key", image=image())
    until(lambda: grounder.running, "the model at work")
    waiting = ask(phrase="mug", **({"image": image()} if waits_for == "its turn" else {}))
    waiting.handle.cancel_goal_async()
    assert waiting.end()[0] == GoalStatus.STATUS_CANCELED
    assert not first.done
    grounder.gate.set()
    assert first.end()[0] == GoalStatus.STATUS_SUCCEEDED
    assert [c[1] for c in grounder.calls] == ["key"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"phrase": ""}, "the phrase is empty"),
        ({"phrase": "key", "camera": "left"}, "no camera 'left'"),
        ({"phrase": "key", "camera": "c" * 10**6}, f"no camera '{'c' * 40}': the parameter"),
        ({"phrase": "k" * 10**7}, "the phrase has 10000000 characters"),
        ({"phrase": "key", "deadline": float("nan")}, "deadline must be 0"),
        ({"phrase": "key", "deadline": -1.0}, "deadline must be 0"),
        ({"phrase": "key", "min_score": 1.5}, "min_score must be at most 1"),
        ({"phrase": "key", "samples": 1000}, "samples must be at most 256"),
        ({"phrase": "key", "region": RegionOfInterest(width=5)}, "the region 5 x 0 at (0, 0) has no area"),
        ({"phrase": "key", "compressed_image": CompressedImage(format="jpeg", data=b"nonsense")}, "no picture of a"),
    ],
)
def test_what_cannot_be_asked_is_told_in_the_result(rig, ask, fields, said):
    status, result = ask(**fields).end()
    assert status == GoalStatus.STATUS_ABORTED and said in result.message
    assert rig.node.statistics.snapshot().goals_failed == 1


def test_a_failing_model_is_told_and_the_next_goal_is_answered(rig, grounder, image, ask):
    grounder.error = RuntimeError("CUDA out of memory")
    status, result = ask(phrase="key", image=image()).end()
    assert status == GoalStatus.STATUS_ABORTED and result.message == "RuntimeError: CUDA out of memory"
    grounder.error = None
    assert ask(phrase="key", image=image()).end()[0] == GoalStatus.STATUS_SUCCEEDED


def test_an_abstention_succeeds_and_says_why(rig, grounder, image, ask):
    grounder.reason = "best score 0.10 is below 0.30"
    status, result = ask(phrase="key", image=image()).end()
    assert status == GoalStatus.STATUS_SUCCEEDED and not result.detections.detections
    assert result.message == grounder.reason


def test_a_goal_whose_deadline_passes_before_its_turn_is_aborted(rig, grounder, image, ask, until):
    grounder.gate.clear()
    ask(phrase="key", image=image())
    until(lambda: grounder.running, "the model at work")
    status, result = ask(phrase="mug", image=image(), deadline=0.05).end()
    assert status == GoalStatus.STATUS_ABORTED and "deadline of 0.05 s passed before it was its turn" in result.message
    grounder.gate.set()


def test_a_goal_without_images_is_aborted_with_the_reason(make_rig, grounder, ask_in, image, until):
    rig = make_rig(lambda settings: grounder, image_timeout=0.2)
    rig.activate()
    ask = ask_in(rig)
    status, result = ask(phrase="key").end()
    assert status == GoalStatus.STATUS_ABORTED
    assert result.message == "no image came within 0.2 s: a publisher is on /grounding/image, but sends nothing"
    rig.peer.destroy_publisher(rig.images)
    until(lambda: rig.node.count_publishers("/grounding/image") == 0, "the publisher's end")
    assert "nobody publishes on /grounding/image" in ask(phrase="key").end()[1].message


def test_too_many_goals_are_aborted_with_the_reason(make_rig, grounder, ask_in, image, until):
    rig = make_rig(lambda settings: grounder, max_goals=2)
    rig.activate()
    ask = ask_in(rig)
    grounder.gate.clear()
    goals = [ask(phrase="key", image=image()) for _ in range(3)]
    assert "2 goals wait already" in goals[2].end()[1].message
    grounder.gate.set()
    assert [g.end()[0] for g in goals[:2]] == [GoalStatus.STATUS_SUCCEEDED] * 2


@pytest.mark.parametrize(("how", "said"), [("deactivate", "deactivated"), ("pause", "paused")])
def test_stopping_the_node_ends_running_and_waiting_goals(rig, grounder, image, ask, until, how, said):
    grounder.obedient = False
    grounder.gate.clear()
    goals = [ask(phrase="key", image=image()), ask(phrase="mug", image=image()), ask(phrase="cup")]
    until(lambda: grounder.running, "the model at work")
    if how == "deactivate":
        assert rig.node.trigger_deactivate().name == "SUCCESS"
    else:
        assert rig.call(SetBool, "pause", data=True).success
    ended = [goal.end() for goal in goals]
    assert [status for status, _ in ended] == [GoalStatus.STATUS_ABORTED] * 3
    assert all(said in result.message for _, result in ended)
    late = ask(phrase="late", image=image()).end()
    assert late[0] == GoalStatus.STATUS_ABORTED and ("not active" in late[1].message or said in late[1].message)
    grounder.gate.set()


def test_goals_go_before_frames_and_do_not_disturb_the_frame_at_work(rig, grounder, image, ask, until):
    rig.ask("standing")
    grounder.gate.clear()
    rig.images.publish(image(stamp=1))
    until(lambda: grounder.running, "the model at work")
    rig.images.publish(image(stamp=2))
    until(lambda: rig.node.statistics.snapshot().images == 2, "the second frame")
    goal = ask(phrase="goal", image=image(stamp=9))
    grounder.gate.set()
    assert goal.end()[0] == GoalStatus.STATUS_SUCCEEDED
    until(lambda: len(rig.detections) == 2, "both frames")
    assert [c[1] for c in grounder.calls] == ["standing", "goal", "standing"]
    assert [d.header.stamp.sec for d in rig.detections] == [1, 2]


def test_the_node_answers_services_while_goals_wait(rig, grounder, image, ask, until):
    grounder.gate.clear()
    goals = [ask(phrase=f"thing {i}", image=image()) for i in range(7)]
    until(lambda: grounder.running, "the model at work")
    assert rig.call(ListQueries, "list_queries").goals == 7
    assert grounder.running  # the answer came while the model was held
    grounder.gate.set()
    assert [g.end()[0] for g in goals] == [GoalStatus.STATUS_SUCCEEDED] * 7
    assert [c[1] for c in grounder.calls] == [f"thing {i}" for i in range(7)]


def test_a_hundred_goals_at_once_all_end_and_are_counted(make_rig, grounder, ask_in, image, until):
    """With the ten requests that ROS keeps by default, most were lost without a word, and their clients waited."""
    rig = make_rig(lambda settings: grounder, max_goals=8)
    rig.activate()
    until(rig.ground.server_is_ready, "the action")
    grounder.gate.clear()
    sent = [rig.send_goal(phrase=f"thing {i}", image=image()) for i in range(100)]
    until(lambda: all(s.done() for s in sent), "every goal to be accepted")
    results = [s.result().get_result_async() for s in sent]
    until(lambda: rig.node.statistics.snapshot().goals_failed == 92, "those who are too many to be refused")
    grounder.gate.set()
    until(lambda: all(r.done() for r in results), "every goal to end")
    ends = [r.result().status for r in results]
    assert ends.count(GoalStatus.STATUS_SUCCEEDED) == 8 and ends.count(GoalStatus.STATUS_ABORTED) == 92
    facts = rig.node.statistics.snapshot()
    assert (facts.goals, facts.goals_succeeded, facts.goals_failed, facts.goals_cancelled) == (100, 8, 92, 0)


def test_a_cancelled_goal_is_counted_as_such(rig, grounder, image, ask, until):
    grounder.gate.clear()
    goal = ask(phrase="key", image=image())
    until(lambda: grounder.running, "the model at work")
    goal.handle.cancel_goal_async()
    assert goal.end()[0] == GoalStatus.STATUS_CANCELED
    facts = rig.node.statistics.snapshot()
    assert (facts.goals, facts.goals_succeeded, facts.goals_failed, facts.goals_cancelled) == (1, 0, 0, 1)


@pytest.mark.parametrize("phrase", ["key", ""])
def test_the_picture_of_a_goal_that_is_over_is_let_go(rig, image, ask, phrase):
    """rclpy keeps a request for as long as its result: a flood of goals kept a picture each for ten seconds."""
    goal = ask(phrase=phrase, image=image(stamp=9, width=40, height=30))
    _, result = goal.end()
    (kept,) = rig.node.goals._server._goal_handles.values()
    assert len(kept.request.image.data) == 0
    assert (result.detections.header.stamp.sec == 9) is bool(phrase)


def test_a_goal_whose_end_cannot_be_told_does_not_count_for_ever(rig, image, ask, until, monkeypatch):
    monkeypatch.setattr("rclpy.action.server.ServerGoalHandle.succeed", lambda handle: 1 / 0)
    assert ask(phrase="key", image=image()).end()[0] == GoalStatus.STATUS_ABORTED  # so rclpy ends it
    assert rig.call(ListQueries, "list_queries").goals == 0
