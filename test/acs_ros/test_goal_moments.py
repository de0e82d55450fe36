"""What goals and statuses promise in the gaps between two steps of the node, each held open for a while."""

import threading
import time

import pytest
from action_msgs.msg import GoalStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from std_srvs.srv import SetBool

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
    gap(rig.node.asker, "take_goal")
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
    gap(rig.node.asker, "take_goal")
    _, result = send(phrase="key", deadline=0.01, **({"image": first} if own else {}))
    status, answer = ended(until, result)
    assert status == GoalStatus.STATUS_ABORTED and ("deadline" if own else "no image") in answer.message


def test_a_goal_that_is_cancelled_at_work_ends_as_cancelled(rig, grounder, gap, send, image, until):
    gap(rig.node.asker, "withdraw", after=True)
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
    gap(rig.node.asker, name, after=True)
    grounder.gate.clear()
    _, result = send(phrase="key", image=image())
    until(lambda: grounder.running, "the model at work")
    stop(rig)
    status, answer = ended(until, result)
    assert (status, answer.message) == (GoalStatus.STATUS_ABORTED, why)


def test_a_goal_may_be_cancelled_as_soon_as_it_is_accepted(rig, grounder, monkeypatch, send, image, until):
    """rclpy tells the client of the acceptance before it gives the goal to the node."""
    cancelled, count = threading.Event(), rig.node.ledger.count
    monkeypatch.setattr(
        rig.node.ledger, "count", lambda *names, **by: ("goals" in names and cancelled.wait(9)) or count(*names, **by)
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
    gap(rig.node.ledger, "count", only="goals_succeeded")
    ended(until, send(phrase="key", image=image())[1])
    assert rig.node.ledger.facts().goals_succeeded == 1


def test_who_has_an_answer_sees_that_its_image_came(rig, gap, image, until):
    gap(rig.node.ledger, "image_came")
    rig.ask("key")
    rig.images.publish(image())
    until(lambda: rig.detections, "an answer")
    assert rig.node.ledger.facts().last_image is not None
    assert "waiting" not in rig.status()[1]
