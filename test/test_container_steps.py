"""The Containerfile is one that tools/container_steps.py can run, and names what the set-up needs."""

import re

import pytest
from container_steps import REPOSITORY, StepError, expanded, main, parse, variables


@pytest.fixture(scope="module")
def steps():
    return parse((REPOSITORY / "Containerfile").read_text())


def test_the_containerfile_makes_the_environment_of_the_makefile(steps):
    assert steps[0].name == "FROM" and re.fullmatch(r"debian:\w+-slim", steps[0].text)
    runs = [step.text for step in steps if step.name == "RUN"]
    assert "make env" in runs and not any("pip install" in run for run in runs)
    [packages] = [set(run.split()) for run in runs if "apt-get install" in run]
    assert {"python3", "python3-venv", "python3-dev", "g++", "make"} <= packages  # what machine_check.py asks for


def test_the_node_does_not_run_as_root(steps):
    names = [step.name for step in steps]
    assert "USER" in names[: names.index("CMD")]


def test_what_git_ignores_is_not_copied_into_the_image(repo):
    def names(file):
        lines = (repo / file).read_text().splitlines()
        return {line.strip("/").removeprefix("**/") for line in lines if line and not line.startswith("#")}

    assert names(".gitignore") <= names(".dockerignore")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("FROM debian", [("FROM", "debian")]),
        ("# a\nRUN a \\\n    b \\\n# between\n    && c\n\nCMD d", [("RUN", "a b && c"), ("CMD", "d")]),
        ("env A=1", [("ENV", "A=1")]),
    ],
)
def test_instructions_are_read(text, found):
    assert [(step.name, step.text) for step in parse(text)] == found


def test_an_unknown_instruction_is_refused():
    with pytest.raises(StepError, match="ADD: only FROM, RUN"):
        parse("ADD x /x")


@pytest.mark.parametrize(
    ("text", "env", "found"),
    [
        ("A=1 B='x y'", {}, {"A": "1", "B": "x y"}),
        ("PATH=/opt/bin:$PATH", {"PATH": "/bin"}, {"PATH": "/opt/bin:/bin"}),
        ("A=${B}c$D", {"B": "b"}, {"A": "bc"}),
    ],
)
def test_variables_are_set_from_the_earlier_ones(text, env, found):
    assert variables(text, env) == found


def test_a_variable_without_a_value_is_refused():
    with pytest.raises(StepError, match="NAME=value"):
        variables("A", {})
    assert expanded("$A", {"A": "$B", "B": "c"}) == "$B"


def test_a_file_that_cannot_be_read_is_said_in_one_line(tmp_path, capsys):
    (tmp_path / "Containerfile").write_text("VOLUME /x\n")
    assert main([str(tmp_path / "root"), "--file", str(tmp_path / "Containerfile")]) == 1
    assert capsys.readouterr().err == (
        "container steps: VOLUME: only FROM, RUN, COPY, ENV, WORKDIR, USER, CMD are known here\n"
    )
