from __future__ import annotations

from dataclasses import fields
from types import SimpleNamespace

import pytest
import rclpy
import yaml
from lifecycle_msgs.srv import GetState
from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.node import Node
from rclpy.parameter import Parameter, parameter_dict_from_yaml_file
from rclpy.parameter_client import AsyncParameterClient

from acs_core.arguments import clean_phrase
from acs_core.errors import PhraseError
from acs_core.image import MAX_PIXELS
from acs_core.types import DEFAULT_MODEL, SamplingConfig
from acs_ros.node.inference_worker import inference_options, sampling_config
from acs_ros.node.parameter_table import SPECS
from acs_ros.node.parameters import (
    USE_FQN,
    Settings,
    change_problem,
    declare_parameters,
    declare_updater_parameter,
    keeps_value,
    read_settings,
    widen_integers,
)


@pytest.fixture
def make_node():
    context, nodes = Context(), []
    rclpy.init(context=context)

    def make(**given):
        overrides = [Parameter(k, value=v) for k, v in given.items()]
        nodes.append(Node("params", context=context, parameter_overrides=overrides))
        declare_parameters(nodes[-1])
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


def test_settings_and_table_have_the_same_names():
    assert [f.name for f in fields(Settings)] == [s.name for s in SPECS]


def test_every_default_is_within_its_own_limits():
    assert [s.problem(s.default) for s in SPECS] == [""] * len(SPECS)


def test_no_limit_is_wider_than_the_engine_keeps():
    high = {s.name: int(s.high) for s in SPECS if s.name in ("max_phrase_chars", "max_image_pixels")}
    assert high["max_image_pixels"] == MAX_PIXELS
    assert len(clean_phrase("x" * high["max_phrase_chars"])) == high["max_phrase_chars"]
    with pytest.raises(PhraseError, match="200 are allowed"):
        clean_phrase("x" * (high["max_phrase_chars"] + 1))


def test_the_automatic_dtype_is_described_as_it_is():
    from acs_core.lvlm.loading import _pick_dtype  # late: torch

    (spec,) = [s for s in SPECS if s.name == "dtype"]
    for device, where in (("cuda", "on a GPU"), ("cpu", "on a CPU")):
        taken = str(_pick_dtype("auto", SimpleNamespace(type=device))).removeprefix("torch.")
        assert f"{taken} {where}" in spec.description


def test_values_given_at_start_are_read(make_node):
    settings = read_settings(make_node(samples=4, temperature=2, seed=11, model="somewhere", speculation=False))
    assert settings.model == "somewhere"
    assert sampling_config(settings) == SamplingConfig(num_samples=4, temperature=2.0, seed=11, speculation=False)
    assert isinstance(settings.temperature, float)


def test_whole_responses_are_asked_for_where_the_parameter_says_so(make_node):
    for value in (False, True):
        assert inference_options(read_settings(make_node(whole_responses=value)), ("key",)).whole_responses is value


def test_a_negative_seed_means_a_fresh_one(make_node):
    assert sampling_config(read_settings(make_node())).seed is None
    assert sampling_config(read_settings(make_node()), 3).num_samples == 3


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_descriptors_say_what_and_when(make_node, spec):
    descriptor = make_node().describe_parameter(spec.name)
    assert spec.description in descriptor.description
    assert ("unconfigured" in descriptor.description) is not spec.live
    ranges = list(descriptor.integer_range) + list(descriptor.floating_point_range)
    assert [(r.from_value, r.to_value) for r in ranges] == ([] if spec.low is None else [(spec.low, spec.high)])


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("samples", 0, r"samples must be in \[1, 256\], got 0"),
        ("samples", 2.5, "samples must be a whole number, got 2.5"),
        ("samples", True, "samples must be a whole number"),
        ("min_score", 1.5, r"min_score must be in \[0, 1\]"),
        ("temperature", float("inf"), "finite"),
        ("dtype", "int8", "one of auto, float32"),
        ("multiple", "yes", "multiple must be true or false"),
        ("model", 7, "model must be a text"),
        ("max_image_pixels", MAX_PIXELS + 1, rf"in \[1, {MAX_PIXELS}\], got {MAX_PIXELS + 1}"),
        ("max_phrase_chars", 201, r"in \[1, 200\], got 201"),
    ],
)
def test_bad_values_at_start_are_named(make_node, name, value, said):
    with pytest.raises(ValueError, match=said):
        make_node(**{name: value})


@pytest.mark.parametrize(
    ("changes", "configured", "said"),
    [
        ({"samples": 3}, True, ""),
        ({"model": "x"}, False, ""),
        ({"model": "x"}, True, "clean up"),
        ({"samples": 3, "heads": "x"}, True, "heads is read when"),
        ({"whole_responses": True, "speculation": False}, True, ""),
        ({"prefix_bytes": 10**6}, True, "prefix_bytes is read when"),
        ({"prefix_bytes": -1}, False, "prefix_bytes must be in [0, 1099511627776]"),
        ({"use_sim_time": True}, True, ""),
        ({"top_p": 0.0}, False, "top_p must be in"),
    ],
)
def test_changes_are_judged(changes, configured, said):
    problem = change_problem(changes, configured)
    assert said in problem and bool(problem) is bool(said)


def test_a_dumped_file_loads_onto_a_configured_node(make_rig, grounder, tmp_path, until):
    """As ``ros2 param dump`` writes it and ``ros2 param load`` sets it, rclpy's read-only parameters included."""
    rig = make_rig(lambda settings: grounder, samples=4, model="somewhere", use_depth=True)
    rig.activate()
    dumped: dict = {}
    for name in rig.node.list_parameters([], 0).names:
        *groups, last = name.split(".")
        where = dumped
        for group in groups:
            where = where.setdefault(group, {})
        where[last] = rig.node.get_parameter(name).value
    assert {"qos_overrides", "diagnostic_updater", "use_sim_time"} <= set(dumped), "those of rclpy and of the updater"
    file = tmp_path / "grounding.yaml"

    def load():
        file.write_text(yaml.safe_dump({"/grounding": {"ros__parameters": dumped}}))
        client = AsyncParameterClient(rig.peer, "/grounding")
        until(client.services_are_ready, "the services")
        future = client.load_parameter_file(str(file))
        until(future.done, "the results")
        names = list(parameter_dict_from_yaml_file(str(file), target_nodes=["/grounding"]))
        return {n: r.reason for n, r in zip(names, future.result().results, strict=True) if not r.successful}

    before = rig.node.parameters.current
    assert load() == {}
    assert rig.node.parameters.current is before, "no change"
    dumped |= {"samples": 7, "temperature": 1, "model": "elsewhere"}
    dumped["diagnostic_updater"]["use_fqn"] = True
    refused = load()
    assert set(refused) == {"model", "diagnostic_updater.use_fqn"} and "clean up the node first" in refused["model"]
    assert (rig.node.parameters.current.samples, rig.node.parameters.current.temperature) == (7, 1.0)
    assert rig.node.set_parameters([Parameter("model", value="somewhere")])[0].successful


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("diagnostic_updater.use_fqn", 1, "must be true or false, got 1"),
        ("diagnostic_updater.period", 0.0, "must be a number of seconds above 0, got 0"),
        ("diagnostic_updater.period", True, "must be a number of seconds above 0, got True"),
        ("diagnostic_updater.period", float("nan"), "must be a number of seconds above 0, got nan"),
    ],
)
def test_parameters_of_a_diagnostic_updater_are_checked(make_node, name, value, said):
    node = make_node(**{name: value})
    with pytest.raises(ValueError, match=f"{name} {said}"):
        declare_updater_parameter(node, name, False if name == USE_FQN else 1.0)


def test_parameters_of_a_diagnostic_updater_are_read(make_rig, grounder, until):
    given = {"diagnostic_updater.use_fqn": True, "diagnostic_updater.period": 0.2, "diagnostics_period": 60.0}
    rig = make_rig(lambda settings: grounder, **given)
    until(lambda: len(rig.diagnostics) > 2, "the status every 0.2 s")
    assert {status.name for array in rig.diagnostics for status in array.status} == {"/grounding: grounding"}


@pytest.mark.parametrize(
    ("parameter", "kept"),
    [
        (Parameter("samples", value=10), True),
        (Parameter("samples", value=11), False),
        (Parameter("samples", value=True), False),
        (Parameter("temperature", value=0.5), True),
        (Parameter("max_rate", value=0), True),
        (Parameter("model", value=DEFAULT_MODEL), True),
        (Parameter("nothing", value=1), False),
        (Parameter("samples"), False),
    ],
)
def test_a_value_that_is_kept_is_no_change(make_node, parameter, kept):
    assert keeps_value(make_node(), parameter) is kept


def test_integers_widen_only_where_a_float_is_wanted():
    given = [Parameter("temperature", value=1), Parameter("samples", value=1), Parameter("use_sim_time", value=True)]
    widened = widen_integers(given)
    assert [p.value for p in widened] == [1.0, 1, True]
    assert [p.type_.name for p in widened] == ["DOUBLE", "INTEGER", "BOOL"]


@pytest.mark.parametrize("value", ["left right", "", "a_1"])
def test_camera_names_become_topics(make_node, value):
    assert read_settings(make_node(cameras=value)).camera_names == (tuple(value.split()) or ("",))


@pytest.mark.parametrize("value", ["left/eye", "1st", "kamera-ä", "left,right"])
def test_camera_names_that_are_no_topics_are_refused(make_node, value):
    with pytest.raises(ValueError, match="is no name for a topic"):
        make_node(cameras=value)


def test_every_shipped_file_sets_known_parameters_to_good_values(repo):
    import ruamel.yaml

    known = {spec.name: spec for spec in SPECS}
    files = sorted((repo / "config").glob("*.yaml"))
    assert len(files) == 4
    for file in files:
        given = ruamel.yaml.YAML(typ="safe").load(file.read_text())["/**"]["ros__parameters"]
        assert {name: known[name].problem(value) for name, value in given.items()} == dict.fromkeys(given, "")


@pytest.mark.parametrize("value", ["c " * 33, "c" * 10**7, "a/" * 600])
def test_camera_names_without_end_are_refused_in_few_words(value):
    problem = change_problem({"cameras": value}, configured=False)
    assert problem.startswith("cameras") and len(problem) < 200


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
        if wanted == getattr(rig.node.settings, spec.name):  # the value that it has is accepted: it is no change
            wanted = type(spec.default)(spec.high)
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


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("image_transport", "theora", "must be one of raw, compressed; got 'theora': a video stream, in which a lost"),
        ("image_transport", "compressedDepth", "that is for depth images: the parameter depth_transport"),
        ("depth_transport", "compressed", "must be one of raw, compressedDepth; got 'compressed': its PNG is"),
        ("image_transport", "png", "must be one of raw, compressed; got 'png'$"),
    ],
)
def test_transports_that_cannot_be_read_are_refused_in_words(make_rig, grounder, name, value, said):
    with pytest.raises(ValueError, match=said):
        make_rig(lambda settings: grounder, **{name: value})


def test_a_wrong_parameter_at_start_is_a_clear_error(make_rig, grounder):
    with pytest.raises(ValueError, match=r"samples must be in \[1, 256\], got 1000"):
        make_rig(lambda settings: grounder, samples=1000)


@pytest.mark.parametrize(("tokens", "problem"), [(0, ""), (16, ""), (600, ""), (1, "at least 16"), (15, "at least 16")])
def test_a_budget_that_no_model_takes_is_refused_at_once(tokens, problem):
    found = change_problem({"max_image_tokens": tokens}, configured=False)
    assert problem in found and bool(found) == bool(problem)
