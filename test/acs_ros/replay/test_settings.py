from __future__ import annotations

import pytest

from acs_core.artifacts.table_1 import READINGS
from acs_ros.replay.settings import changed, identity, make_settings, parse_assignment


@pytest.fixture
def params(tmp_path):
    def write(text):
        file = tmp_path / "params.yaml"
        file.write_text(text)
        return file

    return write


def test_defaults_are_the_nodes_but_the_seed_is_fixed():
    assert changed(make_settings(None, {})) == {"seed": 1}


@pytest.mark.parametrize("node", ["/**", "/*", "/grounding", "grounding", "/**/grounding"])
def test_the_nodes_parameter_file_is_read(params, node):
    file = params(
        f"{node}:\n  ros__parameters:\n    samples: 5\n    temperature: 1\n    use_sim_time: true\n    seed: -1\n"
    )
    settings = make_settings(file, {"top_k": 7})
    assert (settings.samples, settings.temperature, settings.top_k, settings.seed) == (5, 1.0, 7, 1)


@pytest.mark.parametrize(
    ("in_file", "given", "expected"), [(7, {}, 7), (-1, {"seed": -1}, -1), (7, {"seed": 3}, 3), (-1, {"seed": 3}, 3)]
)
def test_a_seed_that_was_asked_for_stays(params, in_file, given, expected):
    file = params(f"/**:\n  ros__parameters:\n    seed: {in_file}\n")
    assert make_settings(file, given).seed == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "params.yaml is no parameter file: while parsing"),
        ("/grounder:\n  ros__parameters:\n    samples: 5\n", "is for /grounding; it names /grounder"),
        ("/**:\n  ros__parameters:\n    sample: 5\n", r"there is no parameter sample \(.*; did you mean samples\?\)"),
        ("/**:\n  ros__parameters:\n    samples: many\n", "samples must be a whole number, got 'many'"),
        ("/**:\n  ros__parameters:\n    samples: 0\n", r"samples must be in \[1, 256\]"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(params, text, said):
    with pytest.raises(ValueError, match=said):
        make_settings(params(text), {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("top_k:=50", ("top_k", 50)),
        ("temperature:=1", ("temperature", 1.0)),
        ("multiple:=true", ("multiple", True)),
        ("heads:=a b.json", ("heads", "a b.json")),
        ("heads:=", ("heads", "")),
    ],
)
def test_assignments_are_read_as_ros_writes_them(text, expected):
    assert parse_assignment(text) == expected


@pytest.mark.parametrize("text", ["top_k", "top_k=5", "nothing:=5", "top_k:=x", "multiple:=maybe", ":=", ""])
def test_other_assignments_are_refused(text):
    with pytest.raises(ValueError, match=r"must be|is not NAME:=VALUE"):
        parse_assignment(text)


def test_a_parameter_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"there is no parameter file .*none\.yaml"):
        make_settings(tmp_path / "none.yaml", {})


def test_a_misspelt_assignment_is_told_the_nearest_name():
    with pytest.raises(ValueError, match=r"did you mean samples\?"):
        parse_assignment("smaples:=3")


def test_an_identity_changes_with_what_the_answer_depends_on(grounder, tmp_path):
    def of(**given):
        return identity(make_settings(None, given), grounder)

    assert of() == of(max_rate=5.0, initial_query="key", jpeg_quality=10, prefix_bytes=0)
    assert all(
        of() != of(**other)
        for other in ({"samples": 3}, {"seed": 2}, {"image_bits": 12}, {"model": "x"}, {"whole_responses": True})
    )
    file = tmp_path / "heads.json"
    file.write_text("1")
    before = of(heads=str(file))
    file.write_text("2")
    assert before != of(heads=str(file)) != of()


def test_a_reading_of_table_1_counts_by_its_name(grounder):
    found = [identity(make_settings(None, {"heads": name}), grounder)["heads"] for name in READINGS]
    assert found == list(READINGS)
