"""The node's transitions: none waits for the model, and none leaves a node that cannot be used again."""

from __future__ import annotations

import threading

import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState

from acs_core.errors import ModelError

WARN, ERROR = 1, 2


def test_deactivation_answers_at_once_and_nothing_stale_follows(rig, grounder, image, until):
    rig.ask("key")
    grounder.gate.clear()
    grounder.obedient = False  # a model that does not look up from its work
    rig.images.publish(image(stamp=1))
    until(lambda: grounder.running, "the model at work")
    assert rig.node.trigger_deactivate().name == "SUCCESS"
    assert grounder.running, "the transition waited for the model"
    assert rig.node.trigger_activate().name == "SUCCESS"
    rig.wait_for_match()
    grounder.obedient = True
    rig.images.publish(image(stamp=2))
    until(lambda: rig.node.statistics.snapshot().images == 2, "the second frame")
    grounder.gate.set()
    until(lambda: rig.detections, "an answer")
    assert [d.header.stamp.sec for d in rig.detections] == [2]
    assert grounder.most_running == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [(ModelError("no such folder: /nowhere"), "no such folder"), (KeyError("layers"), "KeyError: 'layers'")],
)
def test_a_model_that_does_not_load_leaves_a_node_that_can_try_again(make_rig, grounder, error, said):
    attempts = iter([error, None])

    def load(settings):
        if (problem := next(attempts)) is not None:
            raise problem
        return grounder

    rig = make_rig(load)
    assert rig.node.trigger_configure().name == "FAILURE"
    assert rig.node.state_label == "unconfigured"
    level, message, _ = rig.status()
    assert level == ERROR and said in message
    rig.activate()
    assert rig.node.state_label == "active"


def test_the_state_is_told_while_the_model_loads(make_rig, grounder, until):
    go = threading.Event()

    def load(settings):
        assert go.wait(120)
        return grounder

    rig = make_rig(load)
    change = rig.peer.create_client(ChangeState, "/grounding/change_state")
    state = rig.peer.create_client(GetState, "/grounding/get_state")
    until(lambda: change.service_is_ready() and state.service_is_ready(), "the services")
    configure = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
    configured = change.call_async(configure)
    until(lambda: rig.node.state_label == "configuring", "the transition")
    reply = state.call_async(GetState.Request())
    until(reply.done, "the state")
    assert reply.result().current_state.label == "configuring"
    again = change.call_async(configure)
    until(again.done, "the refusal")
    assert not again.result().success
    assert "loading" in rig.status()[1]
    go.set()
    until(configured.done, "the model")
    assert configured.result().success and rig.node.state_label == "inactive"


def test_cleanup_frees_the_model_and_keeps_the_query(rig, image, until):
    rig.ask("key")
    assert rig.node.trigger_deactivate().name == "SUCCESS"
    assert rig.node.trigger_cleanup().name == "SUCCESS"
    assert rig.node.frame_grounder.grounder is None
    assert rig.status()[0] == WARN
    rig.activate()
    rig.images.publish(image())
    until(lambda: rig.detections, "an answer")
    assert rig.detections[0].detections[0].results[0].hypothesis.class_id == "key"


def test_cleanup_gives_the_memory_back(make_rig, grounder):
    import gc

    import torch

    from acs_core.heap import trim_heap
    from acs_ros.diagnostics.memory import resident_bytes

    size = 200_000_000  # bytes

    def load(settings):
        loaded = type(grounder)()
        loaded.weights = [torch.ones(1000, dtype=torch.float32) for _ in range(size // 4000)]
        return loaded

    rig = make_rig(load)
    for _ in range(2):
        # Other tests' memory must be gone before: a weight that is laid into a page freed by them would not be counted.
        gc.collect()
        trim_heap()
        assert rig.node.trigger_configure().name == "SUCCESS"
        held = resident_bytes()
        assert rig.node.trigger_cleanup().name == "SUCCESS"
        assert held - resident_bytes() > 0.8 * size


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        (["activate"], "acs_ros.node.cameras.CameraSet.open"),
        (["activate", "deactivate"], "acs_ros.node.query_manager.QueryManager.pause"),
        (["cleanup"], "acs_ros.node.query_manager.QueryManager.release"),
        ([], "acs_ros.node.cameras.CameraSet.make"),
    ],
)
def test_an_error_in_a_transition_leaves_a_node_that_can_be_used_again(make_rig, grounder, image, until, path, fault):
    rig = make_rig(lambda settings: grounder)
    *before, last = ["configure", *path]
    for transition in before:
        assert getattr(rig.node, f"trigger_{transition}")().name == "SUCCESS"

    def broken(*ignored):
        raise RuntimeError("a fault")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fault, broken)
        getattr(rig.node, f"trigger_{last}")()
    assert rig.node.state_label == "unconfigured"
    rig.activate()
    rig.ask("key")
    rig.images.publish(image())
    until(lambda: rig.detections, "an answer")
    assert rig.status()[0] == 0


def test_autostart_reaches_active_by_itself(make_rig, grounder, until):
    rig = make_rig(lambda settings: grounder, autostart=True)
    until(lambda: rig.node.state_label == "active", "the active state")
    assert rig.node.frame_grounder.grounder is grounder


def test_deactivation_does_not_wait_for_the_rate(make_rig, grounder, image, until):
    rig = make_rig(lambda settings: grounder, max_rate=0.001)
    rig.activate()
    rig.ask("key")
    rig.images.publish(image(stamp=1))
    until(lambda: rig.detections, "the first answer")
    rig.images.publish(image(stamp=2))
    until(lambda: rig.node.statistics.snapshot().images == 2, "the frame")
    assert rig.node.trigger_deactivate().name == rig.node.trigger_cleanup().name == "SUCCESS"
    assert rig.node.state_label == "unconfigured" and len(grounder.calls) == 1


def test_a_closed_node_does_not_wait_for_the_model_and_takes_none(make_rig, grounder, until):
    go = threading.Event()
    loads = []

    def load(settings):
        loads.append(settings)
        go.wait(60)
        return grounder

    rig = make_rig(load, autostart=True)
    until(lambda: loads, "the loading")
    rig.node.close()
    until(lambda: rig.node.state_label == "unconfigured", "the end of the transition")
    assert rig.node.loader.running and rig.node.frame_grounder.grounder is None
    go.set()
    until(lambda: not rig.node.loader.running, "the end of the loading")
    assert rig.node.trigger_configure().name == "FAILURE"
    assert rig.node.frame_grounder.grounder is None and len(loads) == 1


def test_many_activations_under_a_stream_of_images_leave_a_working_node(rig, image, until):
    rig.ask("key")
    streaming = rig.peer.create_timer(0.001, lambda: rig.images.publish(image(stamp=1)))
    for _ in range(10):
        assert rig.node.trigger_deactivate().name == rig.node.trigger_activate().name == "SUCCESS"
        seen = rig.node.statistics.snapshot().answered
        until(lambda seen=seen: rig.node.statistics.snapshot().answered > seen, "an answer")
    streaming.cancel()
    assert rig.spin_error is None
