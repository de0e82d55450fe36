"""Goals of ~/ground: sending and ending are one step, and what holds in the gaps between two steps of the node."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest
from acs_msgs.action import Ground
from acs_msgs.msg import CandidateArray
from action_msgs.msg import GoalStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from lock_parts import WatchedLock
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool
from vision_msgs.msg import Detection2DArray, Detection3DArray

from acs_ros.conversions.images import Frame
from acs_ros.diagnostics.statistics import NodeStatistics
from acs_ros.node.ground_goal import ABORTED, CANCELED, GroundGoal

NEVER = lambda: False  # noqa: E731


class Handle:
    """Stands for rclpy's goal handle; ``told`` are the stages of the feedback."""

    def __init__(self):
        self.request = Ground.Goal(phrase="key")
        self.told = []
        self.before_telling = lambda: None

    def publish_feedback(self, feedback):
        self.before_telling()
        self.told.append(feedback.stage)

    def execute(self, callback):
        pass


@pytest.fixture
def goal(monkeypatch):
    """A goal with its frame; the model and the topics do what ``ground`` and ``publish`` of ``frames`` say. ``sent``
    lists where an answer was published."""
    messages = SimpleNamespace(
        detections=Detection2DArray(), detections_3d=Detection3DArray(), candidates=(CandidateArray(),), no_place=""
    )
    answer = SimpleNamespace(messages=messages, results=(SimpleNamespace(reason=""),))
    frames = SimpleNamespace(
        ground=lambda *_: answer,
        publish=lambda _: made.sent.append("topics"),
        show=lambda _: made.sent.append("pictures"),
        statistics=NodeStatistics(),
        parameters=SimpleNamespace(current=SimpleNamespace(camera_names=("",))),
    )
    log = SimpleNamespace(warning=lambda kind, text: None)
    handle = Handle()
    goal = GroundGoal(handle, frames, log, give_up=lambda *_: None, forget=lambda goal: None)
    made = SimpleNamespace(goal=goal, frames=frames, handle=handle, answer=answer, sent=[])
    monkeypatch.setattr(made.goal, "_options", lambda: None)
    made.lock = WatchedLock(threading.Lock())
    monkeypatch.setattr(made.goal, "_lock", made.lock)
    made.goal.take_frame(Frame(Image(), ""))
    handle.told.clear()
    return made


def cancelled_meanwhile(goal):
    """Cancels on another thread, as the executor does. Returns the thread, which has ended or waits for the lock of the
    goal, and what it came to."""
    came = []
    thread = threading.Thread(target=lambda: came.append(goal.goal.finish(CANCELED, "canceled")), daemon=True)
    thread.start()
    goal.lock.waits_or_ended(thread)
    return thread, came


def test_a_goal_that_is_cancelled_when_the_model_has_answered_sends_nothing(goal):
    def work(*_):
        assert goal.goal.finish(CANCELED, "canceled")
        return goal.answer

    goal.frames.ground = work
    goal.goal.run(NEVER)
    assert goal.sent == [] and goal.goal.cancelled


def test_a_goal_that_is_cancelled_at_the_last_look_before_sending_sends_nothing(goal):
    """The look and the sending were two steps."""

    def should_stop():
        assert goal.goal.finish(CANCELED, "canceled")
        return False

    goal.goal.run(should_stop)
    assert goal.sent == [] and goal.goal.cancelled


def test_a_cancel_that_comes_while_the_answer_is_sent_is_too_late(goal):
    cancels = []

    def send(answer):
        thread, came = cancelled_meanwhile(goal)
        assert came == []  # it waits until the goal is settled
        goal.sent.append("topics")
        cancels.append((thread, came))

    goal.frames.publish = send
    goal.goal.run(NEVER)
    ((thread, came),) = cancels
    thread.join()
    assert came == [False] and not goal.goal.cancelled
    assert goal.sent == ["topics", "pictures"]


def test_an_answer_that_cannot_be_sent_aborts_its_goal(goal):
    def send(answer):
        raise RuntimeError("no publisher")

    goal.frames.publish = send
    goal.goal.run(NEVER)
    assert goal.goal.done and not goal.goal.finish(ABORTED, "again")
    assert goal.goal._result.message == "RuntimeError: no publisher"


def test_a_cancel_that_comes_while_feedback_is_sent_waits_and_then_nothing_more_is_told(goal):
    cancels = []

    def before_telling():
        goal.handle.before_telling = lambda: None
        thread, came = cancelled_meanwhile(goal)
        assert came == []
        cancels.append(thread)

    goal.handle.before_telling = before_telling
    goal.goal.tell("sampling")
    cancels[0].join()
    goal.goal.tell("selection")
    assert goal.handle.told == ["sampling"] and goal.goal.cancelled


def test_a_deadline_beyond_what_a_timer_holds_is_the_longest_one(goal):
    """A goal with a deadline of 1e308 s ended its timer's thread with an OverflowError."""
    goal.goal.end_after(1e308, lambda: "late")
    timer = goal.goal._timer
    assert timer.interval == threading.TIMEOUT_MAX and timer.is_alive()
    goal.goal.finish(CANCELED, "canceled")
    timer.join()


GAP_S = 0.3


@pytest.fixture
def gap(monkeypatch):
    """Makes ``name`` of ``thing`` wait for GAP_S before or after it is done; with ``only``, for that first argument."""

    def hold(thing, name, *, after=False, only=None):
        do = getattr(thing, name)

        def slow(*args, **fields):
            wait = only is None or args[0] == only
            if wait and not after:
                time.sleep(GAP_S)
            try:
                return do(*args, **fields)
            finally:
                if wait and after:
                    time.sleep(GAP_S)

        monkeypatch.setattr(thing, name, slow)

    return hold


@pytest.fixture
def send(rig, until):
    """The result's future of a goal that the node accepted."""

    def begin(**fields):
        until(rig.ground.server_is_ready, "the action")
        sent = rig.send_goal(**fields)
        until(sent.done, "the acceptance")
        return sent.result(), sent.result().get_result_async()

    return begin


def ended(until, result):
    until(result.done, "the result")
    return result.result().status, result.result().result


def test_a_frame_that_is_sent_when_the_goal_says_it_waits_is_its_own(rig, gap, send, image, until):
    gap(rig.node.query_manager, "take_goal")
    stages = []
    _, result = send(phrase="key", feedback_callback=lambda m: stages.append(m.feedback.stage))
    until(lambda: "waiting for an image" in stages, "the goal to wait")
    rig.images.publish(image(stamp=4))
    status, answer = ended(until, result)
    assert status == GoalStatus.STATUS_SUCCEEDED and answer.detections.header.stamp.sec == 4


@pytest.mark.parametrize("own", [True, False])
def test_a_deadline_that_passes_before_the_goal_is_handed_over_ends_it(rig, grounder, gap, send, image, until, own):
    grounder.gate.clear()
    first = image(stamp=1)
    send(phrase="mug", image=first)
    until(lambda: grounder.running, "the model at work")
    gap(rig.node.query_manager, "take_goal")
    _, result = send(phrase="key", deadline=0.01, **({"image": first} if own else {}))
    status, answer = ended(until, result)
    assert status == GoalStatus.STATUS_ABORTED and ("deadline" if own else "no image") in answer.message


def test_a_goal_that_is_cancelled_at_work_ends_as_cancelled(rig, grounder, gap, send, image, until):
    gap(rig.node.query_manager, "withdraw", after=True)
    grounder.gate.clear()
    handle, result = send(phrase="key", image=image())
    until(lambda: grounder.running, "the model at work")
    handle.cancel_goal_async()
    status, answer = ended(until, result)
    assert (status, answer.message) == (GoalStatus.STATUS_CANCELED, "canceled")


def pause(rig):
    assert rig.call(SetBool, "pause", data=True).success


def deactivate(rig):
    step = Transition(id=Transition.TRANSITION_DEACTIVATE)
    assert rig.call(ChangeState, "change_state", transition=step).success


@pytest.mark.parametrize(
    ("stop", "name", "why"),
    [(pause, "hold", "the node is paused"), (deactivate, "pause", "the node was deactivated")],
)
def test_a_goal_at_work_is_told_why_the_node_stops(rig, grounder, gap, send, image, until, stop, name, why):
    gap(rig.node.query_manager, name, after=True)
    grounder.gate.clear()
    _, result = send(phrase="key", image=image())
    until(lambda: grounder.running, "the model at work")
    stop(rig)
    status, answer = ended(until, result)
    assert (status, answer.message) == (GoalStatus.STATUS_ABORTED, why)


def test_a_goal_may_be_cancelled_as_soon_as_it_is_accepted(rig, grounder, monkeypatch, send, image, until):
    """rclpy tells the client of the acceptance before it gives the goal to the node."""
    cancelled, count = threading.Event(), rig.node.statistics.increment
    monkeypatch.setattr(
        rig.node.statistics,
        "increment",
        lambda *names, **by: ("goals" in names and cancelled.wait(60)) or count(*names, **by),
    )
    handle, result = send(phrase="key", image=image())
    cancelling = handle.cancel_goal_async()
    until(cancelling.done, "the answer to the cancellation")
    cancelled.set()
    assert len(cancelling.result().goals_canceling) == 1
    status, answer = ended(until, result)
    assert (status, answer.message) == (GoalStatus.STATUS_CANCELED, "canceled")
    assert not grounder.calls
    until(lambda: rig.node.goals.count == 0, "the end of the goal")
    assert not rig.node.goals._cancelled_early


def test_who_has_a_goals_result_sees_its_count(rig, gap, send, image, until):
    gap(rig.node.statistics, "increment", only="goals_succeeded")
    ended(until, send(phrase="key", image=image())[1])
    assert rig.node.statistics.snapshot().goals_succeeded == 1


def test_who_has_an_answer_sees_that_its_image_came(rig, gap, image, until):
    gap(rig.node.statistics, "image_came")
    rig.ask("key")
    rig.images.publish(image())
    until(lambda: rig.detections, "an answer")
    assert rig.node.statistics.snapshot().last_image is not None
    assert "waiting" not in rig.status()[1]
