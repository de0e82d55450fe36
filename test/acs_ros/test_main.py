import re
import sys

import pytest

import acs_core
import acs_ros.main as module
from acs_ros.node.parameter_table import SPECS


def test_threads_take_short_turns_and_a_ros_that_cannot_start_is_named(monkeypatch, capsys):
    def no_ros(**_):
        raise RuntimeError("no folder for logs")

    monkeypatch.setattr(module.rclpy, "init", no_ros)
    monkeypatch.setattr(module, "steady_heap", lambda: True)  # for good, in this process of all tests
    before = sys.getswitchinterval()
    try:
        assert module.main([]) == 2
        assert sys.getswitchinterval() == pytest.approx(module.SWITCH_S)
    finally:
        sys.setswitchinterval(before)
    said = capsys.readouterr().err
    assert "no folder for logs" in said and "ROS_LOG_DIR" in said


@pytest.mark.parametrize("option", ["--help", "-h", "--version"])
def test_help_and_version_are_told_without_a_node(option, capsys, monkeypatch):
    monkeypatch.setattr(module.rclpy, "init", None)  # is not called
    monkeypatch.setattr(sys, "argv", ["grounding_node", option])
    assert module.main() == 0
    told = capsys.readouterr().out
    if option == "--version":
        assert told == f"grounding_node {acs_core.__version__}\n"
        return
    assert told.startswith("usage: grounding_node [--ros-args]") and max(map(len, told.splitlines())) < 110
    assert set(re.findall(r"-p ([a-z_]+):=", told)) <= {spec.name for spec in SPECS}  # those of the example exist
    assert all(f"\n  {spec.name}  ({spec.type_name}" in told for spec in SPECS)
