from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from acs_ros.launch_checks import check_arguments, check_params_file, check_value, end_message
from acs_ros.node.parameter_table import SPECS

KNOWN = ("samples", "selector", "params_file")
COMMAND = ("ros2", "launch", "acs_ros", "grounding.launch.py")


def check(*given: str, command=COMMAND) -> None:
    check_arguments(given, KNOWN, "/opt/share/launch/grounding.launch.py", command)


def test_known_arguments_and_those_of_ros2_launch_are_taken():
    check("samples:=3", "selector:=greedy", "launch-prefix:=gdb", "launch-prefix-filter:=node")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            ["smaples:=3"],
            "grounding.launch.py has no launch argument smaples (did you mean samples?); --show-args lists",
        ),
        (["colour:=red"], "no launch argument colour; --show-args"),
        (["smaples:=3", "colour:=:=", "samples:=3"], "no launch arguments smaples (did you mean samples?), colour;"),
    ],
)
def test_other_arguments_are_named_with_the_nearest(given, said):
    with pytest.raises(ValueError) as caught:
        check(*given)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("command", "checked"),
    [
        (("ros2", "launch", "launch/grounding.launch.py"), True),
        (("ros2", "launch", "bringup", "robot.launch.py"), False),
        ((), False),
    ],
)
def test_only_the_file_on_the_command_line_knows_all_arguments(command, checked):
    if checked:
        with pytest.raises(ValueError):
            check("robot:=7", command=command)
    else:
        check("robot:=7", command=command)


def test_a_parameter_file_must_be_there(tmp_path):
    (tmp_path / "p.yaml").touch()
    check_params_file(str(tmp_path / "p.yaml"))
    for path in (tmp_path, tmp_path / "none.yaml"):
        with pytest.raises(ValueError, match=f"params_file: there is no file {path}"):
            check_params_file(str(path))


@pytest.mark.parametrize(("code", "again"), [(0, True), (1, True), (-9, True), (None, True), (2, False)])
def test_only_a_wrong_set_up_is_not_started_again(code, again):
    assert (end_message(code) == "") is again


def test_the_checks_need_nothing_but_python():
    heavy = "('yaml', 'numpy', 'rclpy', 'launch')"
    code = f"import sys, acs_ros.launch_checks; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("name", ["grounding", "demo"])
def test_the_launch_files_use_them(repo, name):
    """Where launch is not installed, test_launch.py is skipped."""
    tree = ast.parse((repo / "launch" / f"{name}.launch.py").read_text())
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    wanted = {"check_arguments", "check_params_file", "end_message"} if name == "grounding" else {"check_arguments"}
    assert wanted <= called


def test_launch_arguments_that_become_parameters_have_their_types(repo):
    """test_launch.py, with the real launch, is skipped where that is not installed."""
    tree = ast.parse((repo / "launch" / "grounding.launch.py").read_text())
    (overrides,) = [n.value for n in tree.body if isinstance(n, ast.AnnAssign) and n.target.id == "OVERRIDES"]
    given = {key.value: value.elts[0].id for key, value in zip(overrides.keys, overrides.values, strict=True)}
    types = {spec.name: type(spec.default).__name__ for spec in SPECS}
    assert given == {name: types.get(name) for name in given}
    assert given.keys() >= {"prefix_bytes", "speculation", "whole_responses"}


@pytest.mark.parametrize(
    ("text", "kind", "wanted"),
    [
        ("many", int, "a whole number"),
        ("2.5", int, "a whole number"),
        ("soon", float, "a number"),
        ("nan", float, "a number"),
        ("yes", bool, "true or false"),
    ],
)
def test_a_value_of_a_wrong_type_is_named_with_its_argument(text, kind, wanted):
    with pytest.raises(ValueError, match=f"^samples must be {wanted}, got '{text}'$"):
        check_value("samples", text, kind)


@pytest.mark.parametrize(("text", "kind"), [("3", int), ("2.5", float), ("3", float), ("True", bool), ("any", str)])
def test_a_value_of_the_right_type_is_taken(text, kind):
    check_value("samples", text, kind)
