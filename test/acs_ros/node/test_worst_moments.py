"""Every lifecycle transition at every moment that could be the wrong one: asked over DDS, as a launch file asks it."""

import threading

import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from std_srvs.srv import SetBool

STEPS = {
    "configure": Transition.TRANSITION_CONFIGURE,
    "activate": Transition.TRANSITION_ACTIVATE,
    "deactivate": Transition.TRANSITION_DEACTIVATE,
    "cleanup": Transition.TRANSITION_CLEANUP,
    "shut down": Transition.TRANSITION_ACTIVE_SHUTDOWN,
    "shut down inactive": Transition.TRANSITION_INACTIVE_SHUTDOWN,
    "shut down unconfigured": Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
}
# What is asked of an active node, whether each is taken, and the state that it ends in.
WAYS = {
    "configured again": ([("configure", False)], "active"),
    "activated again": ([("activate", False)], "active"),
    "cleaned up without deactivation": ([("cleanup", False)], "active"),
    "deactivated": ([("deactivate", True)], "inactive"),
    "deactivated and activated": ([("deactivate", True), ("activate", True)], "active"),
    "deactivated and cleaned up": ([("deactivate", True), ("cleanup", True)], "unconfigured"),
    "shut down": ([("shut down", True)], "finalized"),
    "shut down inactive": ([("deactivate", True), ("shut down inactive", True)], "finalized"),
    "shut down unconfigured": (
        [("deactivate", True), ("cleanup", True), ("shut down unconfigured", True)],
        "finalized",
    ),
}


@pytest.fixture(autouse=True)
def little_patience(monkeypatch):
    """Nobody waits long for a model that does not look up."""
    monkeypatch.setattr("acs_ros.node.grounding_node.STOP_TIMEOUT_S", 0.3)


def at_work(rig, grounder, image, until):
    """A frame at the model."""
    grounder.gate.clear()
    rig.images.publish(image(stamp=1))
    until(lambda: grounder.running, "the model at work")


def deaf(rig, grounder, image, until):
    """A frame at a model that does not look up."""
    grounder.obedient = False
    at_work(rig, grounder, image, until)


def replaced(rig, grounder, image, until):
    """A frame at the model, another waiting."""
    at_work(rig, grounder, image, until)
    rig.images.publish(image(stamp=2))
    until(lambda: rig.node.statistics.snapshot().images == 2, "the second frame")


def goal_at_work(rig, grounder, image, until):
    """A goal with its own picture at the model, one more waiting for a frame."""
    grounder.gate.clear()
    until(rig.ground.server_is_ready, "the action")
    sent = [rig.send_goal(phrase="key", image=image(stamp=1))]
    until(lambda: grounder.running, "the model at work")
    sent.append(rig.send_goal(phrase="mug"))
    until(lambda: all(s.done() for s in sent), "the goals to be accepted")
    return [s.result().get_result_async() for s in sent]


def paused(rig, grounder, image, until):
    """A node that is held."""
    assert rig.call(SetBool, "pause", data=True).success


def idle(rig, grounder, image, until):
    """A node whose last frame was answered."""
    rig.images.publish(image(stamp=1))
    until(lambda: rig.detections, "an answer")
    rig.detections.clear()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("moment", [at_work, deaf, replaced, goal_at_work, paused, idle])
def test_a_transition_at_any_moment_leaves_what_it_promises(rig, grounder, image, until, moment, way):
    rig.ask("key")
    results = moment(rig, grounder, image, until) or []
    steps, state = WAYS[way]
    for step, taken in steps:
        answer = rig.call(ChangeState, "change_state", transition=Transition(id=STEPS[step]))
        assert answer.success == taken, step
    assert rig.node.state_label == state
    assert not rig.detections  # nothing was let through on the way
    stopped = any(taken for _, taken in steps)
    grounder.obedient = True
    grounder.gate.set()
    until(lambda: not grounder.running, "the model to stop")
    if stopped:
        until(lambda: all(r.done() for r in results), "the end of the goals")
        assert all(r.result().result.message for r in results)
    if state == "finalized":
        assert not rig.detections
        return

    if state == "unconfigured":
        assert rig.node.trigger_configure().name == "SUCCESS"
    if state != "active":
        assert rig.node.trigger_activate().name == "SUCCESS"
    if moment is paused:
        assert rig.call(SetBool, "pause", data=False).success
    rig.wait_for_match()
    rig.images.publish(image(stamp=9))
    until(lambda: any(d.header.stamp.sec == 9 for d in rig.detections), "the answer to the newest frame")
    if stopped:
        assert {d.header.stamp.sec for d in rig.detections} == {9}  # nothing from before
    assert grounder.most_running == 1
    until(lambda: all(r.done() for r in results), "the end of the goals")


def test_an_outdated_look_at_the_demand_does_not_undo_a_later_one(make_rig, grounder, until):
    """The executor may have asked who wants frames before the node was active, and act on it afterwards."""
    rig = make_rig(lambda settings: grounder)
    assert rig.node.trigger_configure().name == "SUCCESS"
    cameras, asked, answered = rig.node.cameras, threading.Event(), threading.Event()
    threads = []

    def wants_frames(camera):
        if asked.is_set():
            return True
        asked.set()  # the first that asks: it is told the state of now, late
        answered.wait(30)
        return False

    for _ in range(2):
        threads.append(threading.Thread(target=cameras.open, args=(wants_frames,)))
        threads[-1].start()
        until(asked.is_set, "the first look")
    threads[1].join(0.2)  # where one look does not wait for the other, it is over by now
    answered.set()
    for thread in threads:
        thread.join(30)
    assert cameras._cameras[""].listening
