"""The node as a real process over DDS, with a real (small, random) transformers model in it."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from process_parts import gone
from std_msgs.msg import Header

from acs_ros.client.node_client import NodeClient
from acs_ros.client.node_process import NodeProcess
from acs_ros.errors import NodeTrouble

pytestmark = pytest.mark.processes
LONG_S = 300.0
QUICK_MODEL = ["-p", "selector:=greedy", "-p", "max_new_tokens:=8", "-p", "diagnostics_period:=0.2"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tiny_models

    return tiny_models.save_internvl(tmp_path_factory.mktemp("model"))


def header(number: int) -> Header:
    made = Header(frame_id="camera_optical")
    made.stamp.sec = int(time.time())  # of the present: stamps of another clock would be the first thing to be told
    made.stamp.nanosec = number
    return made


def picture(value: int = 120) -> np.ndarray:
    return np.full((90, 150, 3), value, np.uint8)


def test_a_real_node_loads_answers_survives_bad_input_and_stops(model, domain, tmp_path, until):
    phrase = "<|im_end|> the key"
    node = NodeProcess(["-p", f"model:={model}", *QUICK_MODEL], tmp_path / "log", {"ROS_DOMAIN_ID": str(domain)})
    with node, NodeClient("/grounding", domain) as client:
        client.wait_for_services(LONG_S)
        assert client.state(LONG_S) == "unconfigured"
        client.change_state(Transition.TRANSITION_CONFIGURE, LONG_S)
        client.change_state(Transition.TRANSITION_ACTIVATE, LONG_S)
        client.wait_for_topics(LONG_S)
        client.ask_for(phrase, LONG_S)
        stamped = header(3)
        reply = client.ask_about(stamped, picture(), phrase, LONG_S)
        assert reply is not None
        assert reply.detections.header == reply.candidates.header == stamped
        assert (reply.candidates.image_width, reply.candidates.image_height) == (150, 90)
        assert reply.candidates.num_responses == 1 and reply.candidates.selector == "greedy"

        # A frame that is larger than allowed, and than what Fast DDS passes without the shipped profile. Best effort
        # may lose one on a busy machine, so it is sent until it came.
        client.set_parameter("max_image_pixels", 100_000, LONG_S)
        large = np.zeros((1200, 1600, 3), np.uint8)
        until(lambda: client.ask_about(header(4), large, phrase, 1.0) or "the limit is 100,000" in client.status, "it")
        assert client.ask_about(header(5), picture(), phrase, LONG_S) is not None
        with pytest.raises(NodeTrouble, match="could not configure"):
            client.change_state(Transition.TRANSITION_CONFIGURE, LONG_S)
        client.change_state(Transition.TRANSITION_DEACTIVATE, LONG_S)
        assert client.state(LONG_S) == "inactive"
        client.change_state(Transition.TRANSITION_CLEANUP, LONG_S)
    assert node.exit_code == 0, node.last_lines()
    assert "Traceback" not in node.log.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-p", "samples:=1000"], "samples must be in [1, 256], got 1000"),
        (["-p", "samples:=many"], "samples must be a whole number, got 'many'"),
        (["-p", "smaples:=3"], "there is no parameter smaples (-p; did you mean samples?); docs/node.md lists them"),
        (["--params-file", "none.yaml"], "there is no parameter file none.yaml"),
    ],
)
def test_unusable_parameters_end_the_process_with_one_line(tmp_path, arguments, said):
    with NodeProcess(arguments, tmp_path / "log") as process:
        process.wait(LONG_S)
    assert process.exit_code == 2
    assert process.last_lines() == f"grounding: {said}"


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_process_while_the_model_loads(tmp_path, until, sign):
    script = """
        import sys, time
        from acs_ros.main import main
        load = lambda settings: print("at it", flush=True) or time.sleep(1000)
        sys.exit(main(["--ros-args", "-p", "autostart:=true"], load=load))
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with (tmp_path / "log").open("wb") as log:
        node = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        until(lambda: "at it" in (tmp_path / "log").read_text(), "the loading")
        node.send_signal(sign)
        assert node.wait(LONG_S) == 0
    finally:
        node.kill()
        node.wait()
    said = (tmp_path / "log").read_text()
    assert "grounding: stopping" in said and "Traceback" not in said


def test_the_node_does_not_outlive_a_starter_that_is_killed(tmp_path, until):
    script = f"""
        from pathlib import Path
        import time
        from acs_ros.client.node_process import NodeProcess
        with NodeProcess([], Path({str(tmp_path / "log")!r})) as process:
            print(process.pid, flush=True)
            time.sleep(1000)
    """
    starter = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    assert Path(f"/proc/{pid}").exists()
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    starter.stdout.close()

    until(lambda: gone(pid), "the node to end")


def test_the_process_ends_without_pythons_own_end(domain, tmp_path):
    """With torch loaded, that takes seconds, and `ros2 launch` escalates after five."""
    (tmp_path / "sitecustomize.py").write_text("import atexit\natexit.register(print, 'the end of Python')\n")
    paths = f"{tmp_path}:{':'.join(sys.path)}"
    environment = {"ROS_DOMAIN_ID": str(domain), "PYTHONPATH": paths}
    with NodeProcess([], tmp_path / "log", environment) as node, NodeClient("/grounding", domain) as client:
        client.wait_for_services(LONG_S)
    assert node.exit_code == 0
    assert node.last_lines() == "grounding: stopping"
    with NodeProcess(["-p", "samples:=0"], tmp_path / "log", environment, "acs_ros.stress.instant_node") as other:
        other.wait(LONG_S)
    assert other.last_lines().endswith("the end of Python")  # what the test would see
