"""Parameters of the running node: set while the model works, or refused with the reason."""

from __future__ import annotations

import pytest
from lifecycle_msgs.srv import GetState
from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter

from acs_ros.parameter_table import SPECS


def test_services_and_parameters_answer_while_the_model_works(rig, grounder, image, until):
    rig.ask("key")
    grounder.gate.clear()
    rig.images.publish(image())
    until(lambda: grounder.running, "the model at work")
    state = rig.peer.create_client(GetState, "/grounding/get_state")
    change = rig.peer.create_client(SetParameters, "/grounding/set_parameters")
    until(lambda: state.service_is_ready() and change.service_is_ready(), "the services")
    reply = state.call_async(GetState.Request())
    until(reply.done, "the state")
    assert reply.result().current_state.label == "active"
    wanted = Parameter("samples", value=3).to_parameter_msg()
    # An integer for a floating-point parameter is what `ros2 param set /grounding temperature 1` sends.
    whole = Parameter("temperature", value=1).to_parameter_msg()
    assert whole.value == ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=1)
    reply = change.call_async(SetParameters.Request(parameters=[wanted, whole]))
    until(reply.done, "the parameters")
    assert [r.successful for r in reply.result().results] == [True, True]
    assert grounder.running
    grounder.gate.set()
    until(lambda: rig.detections, "an answer")
    rig.images.publish(image(stamp=2))
    until(lambda: len(rig.detections) == 2, "the next answer")
    assert [c[2]["sampling"].num_samples for c in grounder.calls] == [10, 3]
    assert grounder.calls[1][2]["sampling"].temperature == 1.0


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("samples", 0, "Min: 1, Max: 256"),
        ("temperature", 0.0, "Min: 0.01"),
        ("temperature", float("nan"), "out of range"),
        ("samples", "ten", "Wrong parameter type"),
        ("model", "other", "clean up"),
        ("autostart", True, "clean up"),
    ],
)
def test_bad_parameter_values_are_refused_with_the_reason(rig, name, value, said):
    (outcome,) = rig.node.set_parameters([Parameter(name, value=value)])
    assert not outcome.successful and said in outcome.reason


def _other(spec):
    """A good value that is not the default."""
    if spec.choices:
        return next(c for c in spec.choices if c != spec.default)
    if isinstance(spec.default, bool):
        return not spec.default
    if isinstance(spec.default, str):
        return "other"
    return spec.low if spec.low != spec.default else spec.high


def test_every_parameter_can_be_set_where_it_may_and_is_refused_where_not(rig, until):
    change = rig.peer.create_client(SetParameters, "/grounding/set_parameters")
    until(change.service_is_ready, "the service")
    for spec in SPECS:
        wanted = type(spec.default)(_other(spec))
        asked = change.call_async(
            SetParameters.Request(parameters=[Parameter(spec.name, value=wanted).to_parameter_msg()])
        )
        until(asked.done, "the outcome")
        (outcome,) = asked.result().results
        assert outcome.successful is spec.live, (spec.name, outcome.reason)
        if spec.live:
            assert getattr(rig.node.settings, spec.name) == wanted
        else:
            assert outcome.reason.startswith(f"{spec.name} is read when the node is configured")
        if spec.high is not None:
            (outcome,) = rig.node.set_parameters([Parameter(spec.name, value=type(spec.default)(spec.high + 1))])
            assert not outcome.successful and spec.name in outcome.reason


def test_parameters_of_the_model_change_when_unconfigured(make_rig, grounder):
    loaded = []
    rig = make_rig(lambda settings: loaded.append(settings.model) or grounder, model="first")
    (outcome,) = rig.node.set_parameters([Parameter("model", value="second")])
    assert outcome.successful
    rig.activate()
    assert loaded == ["second"]


def test_a_wrong_parameter_at_start_is_a_clear_error(make_rig, grounder):
    with pytest.raises(ValueError, match=r"samples must be in \[1, 256\], got 1000"):
        make_rig(lambda settings: grounder, samples=1000)
