"""A running node is sent senseless values of valid types on every way in, and still answers."""

from __future__ import annotations

import random

import pytest
from acs_msgs.action import Ground
from action_msgs.srv import CancelGoal
from rcl_interfaces.msg import ParameterValue
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String

from acs_ros.client.background_node import BackgroundNode
from fuzz.messages import MessageMaker
from fuzz.node import NAME, NodeFuzzer, fuzz_node, running_node
from fuzz.types import class_of

CASES = 360  # fifteen for each way in
# Ways in that must be among those that the graph shows; others are fuzzed as well.
TOPICS = {"/clock", *(f"/grounding/{name}" for name in ("query", "camera_info", "depth"))}
SERVICES = {
    f"/grounding/{name}"
    for name in (
        *("set_queries", "list_queries", "clear_queries", "pause"),
        *("change_state", "get_state", "get_available_states", "get_available_transitions", "get_transition_graph"),
        *("set_parameters", "set_parameters_atomically", "get_parameters", "get_parameter_types"),
        *("describe_parameters", "list_parameters", "get_type_description"),
        *("ground/_action/send_goal", "ground/_action/cancel_goal", "ground/_action/get_result"),
    )
}


@pytest.mark.processes
@pytest.mark.parametrize(("transport", "image"), [("raw", "image"), ("compressed", "image/compressed")])
def test_a_fuzzed_node_lives_answers_and_counts(transport, image, domain, tmp_path):
    log = tmp_path / "log"
    with running_node(domain, log, transport) as process:
        found = fuzz_node(process, domain, CASES, seed=1)
        assert process.exit_code is None
    assert process.exit_code == 0
    assert set(found.sent) >= TOPICS | SERVICES | {f"/grounding/{image}"}
    assert found.unanswered == []
    assert found.callback_errors > 0 and found.last_error
    said = log.read_text(errors="replace")
    assert "a callback failed, the node goes on" in said
    assert "Exception in thread" not in said


def test_what_nobody_hears_is_not_counted_as_sent(domain, until):
    fuzzer = NodeFuzzer(domain, 1, lambda: None)
    with BackgroundNode(NAME, domain) as node:
        try:
            fuzzer._send("/nobody", "std_msgs/msg/String", False)
            assert (fuzzer._found.sent, fuzzer._found.unheard) == ({}, {"/nobody": 1})
            node.node.create_subscription(String, "/somebody", lambda msg: None, 10)
            until(lambda: fuzzer._is_heard("/somebody"), "the subscription in the graph")
            fuzzer._send("/somebody", "std_msgs/msg/String", False)
            counted = fuzzer._found.sent + fuzzer._found.not_sent
            assert counted == {"/somebody": 1} and fuzzer._found.unheard == {"/nobody": 1}
        finally:
            fuzzer.close()


KINDS = [Image, CompressedImage, CameraInfo, ParameterValue, CancelGoal.Request, Ground.Impl.SendGoalService.Request]


@pytest.mark.parametrize("kind", KINDS)
def test_messages_are_made_from_their_definition_and_can_be_sent(kind):
    maker = MessageMaker(random.Random(3), ("word",))
    made = [maker.make(kind) for _ in range(40)]
    sent = []
    for message in made:
        try:
            sent.append(deserialize_message(serialize_message(message), kind))
        except UnicodeError:  # a lone surrogate
            continue
    assert len(sent) > 20
    plain = Comparable(kind())
    for name in kind.get_fields_and_field_types():
        assert any(getattr(m, name) != getattr(plain, name) for m in map(Comparable, sent)), name


class Comparable:
    """A message whose arrays compare as a whole."""

    def __init__(self, message):
        self._message = message

    def __getattr__(self, name):
        value = getattr(self._message, name)
        return value.tolist() if hasattr(value, "tolist") else value


def test_the_same_seed_makes_the_same_messages():
    first, second = (MessageMaker(random.Random(7), ("word",)) for _ in range(2))
    assert [repr(first.make(CameraInfo)) for _ in range(5)] == [repr(second.make(CameraInfo)) for _ in range(5)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sensor_msgs/msg/Image", Image),
        ("acs_msgs/action/Ground_SendGoal", Ground.Impl.SendGoalService),
        ("acs_msgs/action/Ground_GetResult", Ground.Impl.GetResultService),
        ("acs_msgs/action/Ground_Goal", Ground.Goal),
        ("action_msgs/srv/CancelGoal", CancelGoal),
    ],
)
def test_types_by_their_names_in_the_graph(name, expected):
    assert class_of(name) is expected


def test_an_unknown_type_is_named():
    with pytest.raises((ImportError, AttributeError), match="Nothing"):
        class_of("sensor_msgs/msg/Nothing")
