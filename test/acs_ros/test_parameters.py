from __future__ import annotations

from dataclasses import fields
from types import SimpleNamespace

import pytest
import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.parameter import Parameter

from acs_core.errors import PhraseError
from acs_core.image import MAX_PIXELS
from acs_core.phrase import clean_phrase
from acs_core.types import SamplingConfig
from acs_ros.engine import sampling_of
from acs_ros.parameter_table import SPECS
from acs_ros.parameters import Settings, change_problem, declare_parameters, read_settings, widen_integers


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
    settings = read_settings(make_node(samples=4, temperature=2, seed=11, model="somewhere"))
    assert settings.model == "somewhere"
    assert sampling_of(settings) == SamplingConfig(num_samples=4, temperature=2.0, seed=11)
    assert isinstance(settings.temperature, float)


def test_a_negative_seed_means_a_fresh_one(make_node):
    assert sampling_of(read_settings(make_node())).seed is None
    assert sampling_of(read_settings(make_node()), 3).num_samples == 3


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
        ("samples", 2.5, "samples must be a int, got 2.5"),
        ("samples", True, "samples must be a int"),
        ("min_score", 1.5, r"min_score must be in \[0, 1\]"),
        ("temperature", float("inf"), "finite"),
        ("dtype", "int8", "one of auto, float32"),
        ("multiple", "yes", "multiple must be a bool"),
        ("model", 7, "model must be a str"),
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
        ({"use_sim_time": True}, True, ""),
        ({"top_p": 0.0}, False, "top_p must be in"),
    ],
)
def test_changes_are_judged(changes, configured, said):
    problem = change_problem(changes, configured)
    assert said in problem and bool(problem) is bool(said)


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
