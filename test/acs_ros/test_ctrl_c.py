"""Ctrl-C and SIGTERM at any moment end a command without a stack trace, and the node with exit code 0."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_parts import console_scripts

pytestmark = pytest.mark.processes
LONG_S = 120.0
STARTER = Path(__file__).with_name("signal_at.py")
# In the order of the start; the model loads on a thread of its own, the transitions run on the executor's threads.
MOMENTS = {
    "importing rclpy": "import rclpy",
    "importing numpy": "import numpy",
    "importing messages": "import sensor_msgs.msg",
    "importing the node": "import acs_ros.node.grounding_node",
    "main": "call acs_ros/main.py:main",
    "joining DDS": "call rclpy/__init__.py:init",
    "making the node": "call acs_ros/node/grounding_node.py:GroundingNode.__init__",
    "declaring parameters": "call acs_ros/node/parameters.py:declare_parameters",
    "before the executor runs": "call acs_ros/rclpy_fixes.py:FaultTolerantExecutor.__init__",
    "the executor's first turn": "call rclpy/executors.py:MultiThreadedExecutor.spin_once",
    "configure": "call acs_ros/node/grounding_node.py:GroundingNode.on_configure",
    "loading the model": "call acs_ros/node/model_loader.py:load_grounder",
    "importing torch": "import torch",
    "reading the weights": "import transformers.modeling_layers",
}
# With a model that is there at once: importing torch takes long when every call is looked at.
LATER = {
    "making the topics": "call acs_ros/node/cameras.py:CameraSet.make",
    "activate": "call acs_ros/node/grounding_node.py:GroundingNode.on_activate",
    "active": "call acs_ros/node/cameras.py:CameraSet.open",
}
CLOSING = "call acs_ros/node/grounding_node.py:GroundingNode.close"
ENDING = {
    "closing": CLOSING,
    "shutting the executor down": "call rclpy/executors.py:MultiThreadedExecutor.shutdown",
    "leaving DDS": "call rclpy/node.py:Node.destroy_node",
    "handing the signals back": "call acs_ros/stop_signals.py:StopSignals.__exit__",
    "after main": "call acs_core/entry.py:_Signals.ignore",
}
FIRST = {**MOMENTS, **LATER}
COMMANDS = {
    "acs_ros.commands:acs_ground": ("rich.console", "acs_core.image"),
    "acs_ros.commands:acs_replay": ("rclpy", "numpy"),
    "acs_ros.commands:ask_by_action": ("rclpy", "acs_msgs.action"),
    "acs_ros.commands:ask_by_service": ("rclpy", "std_srvs.srv"),
    "acs_ros.commands:ask_by_topic": ("rclpy", "vision_msgs.msg"),
    "acs_ros.commands:bag_player": ("rclpy", "rosbags.rosbag2"),
    "acs_ros.commands:grounding_node": ("rclpy", "acs_ros.node.action_server"),
    "acs_ros.commands:acs_bench": ("typer", "acs_core.bench.console"),
    "acs_ros.commands:acs_load": ("typer", "rich.console"),
    "acs_ros.commands:acs_soak": ("typer", "numpy"),
    "acs_ros.commands:acs_train": ("typer", "training.cli.tiny"),
}


def ended(sign: str, moments: str, target: str, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a command that gets ``sign`` at ``moments``; there is no stack trace in it."""
    command = [sys.executable, str(STARTER), sign, moments, target, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LONG_S)
    for word in ("Traceback", "KeyboardInterrupt", "Exception ignored", "never retrieved", "Error"):
        assert word not in done.stdout, done.stdout
    return done.returncode, done.stdout


@pytest.fixture
def node(domain, monkeypatch):
    """Starts the node, and expects exit code 0, which is what `ros2 launch` takes for a good end."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))

    def run(sign: str, *moments: str) -> str:
        instant = set(moments) & {*LATER.values(), *ENDING.values()}
        target = "acs_ros.stress.instant_node" if instant else "acs_ros.commands:grounding_node"
        code, said = ended(sign, ";".join(moments), target, "--ros-args", "-p", "autostart:=true")
        assert code == 0, said
        return said

    return run


@pytest.mark.parametrize("moment", FIRST)
def test_ctrl_c_at_a_moment_of_the_start_ends_the_node(node, moment):
    assert re.search("grounding: stop(ped|ping)\n", node("SIGINT", FIRST[moment]))


@pytest.mark.parametrize("moment", ["importing rclpy", "making the node", "loading the model", "activate"])
def test_sigterm_does_the_same(node, moment):
    assert re.search("grounding: stop(ped|ping)\n", node("SIGTERM", FIRST[moment]))


@pytest.mark.parametrize("moment", ["importing rclpy", "joining DDS", "configure", "importing torch", "active"])
def test_ctrl_c_twice_in_a_row_does_the_same(node, moment):
    node("SIGINT", FIRST[moment], FIRST[moment])


@pytest.mark.parametrize("moment", ENDING)
def test_ctrl_c_again_while_the_node_stops_changes_nothing(node, moment):
    assert "grounding: stopping\n" in node("SIGINT", LATER["active"], ENDING[moment])


def test_the_third_ctrl_c_ends_the_node_at_once(node):
    assert node("SIGINT", LATER["active"], CLOSING, CLOSING).endswith("grounding: stopped at once\n")


@pytest.mark.parametrize(("command", "module"), [(c, m) for c, modules in COMMANDS.items() for m in modules])
def test_ctrl_c_while_a_command_imports_is_one_line(command, module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = command.partition(":")[2]
    arguments = {"acs_ground": ["none.png", "key"]}.get(name, ["--help"])
    code, said = ended("SIGINT", f"import {module}", command, *arguments)
    assert code == (0 if name in ("grounding_node", "bag_player") else 130), said
    assert re.fullmatch(r"[\w-]+: stopped\n", said)


@pytest.mark.parametrize("sign", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(
    ("example", "moment"),
    [
        ("ask_by_topic", "call rclpy/executors.py:SingleThreadedExecutor.spin_once"),
        ("ask_by_service", "call acs_ros/client/pending_calls.py:CallbackWaiter.wait"),
        ("ask_by_action", "call rclpy/node.py:Node.__init__"),
        ("bag_player", "call acs_ros/bags/bag_player.py:BagPlayer.wait_for_listener"),
    ],
)
def test_a_signal_while_an_example_waits_for_the_node_is_one_line(sign, example, moment, domain, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    arguments = [] if example == "bag_player" else ["key"]
    code, said = ended(sign, moment, f"acs_ros.commands:{example}", *arguments)
    assert code == (0 if example == "bag_player" else 130), said
    assert len(said.splitlines()) <= 1


def test_these_are_all_the_commands():
    assert set(console_scripts()) == set(COMMANDS)


def test_what_is_run_as_a_module_starts_with_its_signals(repo):
    """``python -m`` runs the file from its top: imports before run() would be interrupted with a stack trace."""
    late = []
    for room in ("acs_core", "acs_ros", "training"):
        for file in (repo / room).rglob("*.py"):
            body = ast.parse(file.read_text()).body
            places = [n for n, node in enumerate(body) if isinstance(node, ast.If) and "__main__" in ast.unparse(node)]
            if places and (places[0] > 2 or "run(" not in ast.unparse(body[places[0]])):
                late.append(str(file.relative_to(repo)))
    assert late == []
