"""The node as a real process over DDS, with a real (small, random) transformers model in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from process_parts import gone
from rosbags.rosbag2 import Reader
from std_msgs.msg import Header

from acs_core.geometry import Box
from acs_core.types import Detection
from acs_ros import demo
from acs_ros.bags import BagFrame, read_bag, write_bag
from acs_ros.demo_report import Row
from acs_ros.messages import candidates_to_message, detections_to_message
from acs_ros.node_client import NodeClient, NodeTrouble, Reply
from acs_ros.node_process import NodeProcess

pytestmark = pytest.mark.processes
LONG_S = 300.0
QUICK_MODEL = ["-p", "selector:=greedy", "-p", "max_new_tokens:=8", "-p", "diagnostics_period:=0.2"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sys.path.insert(0, str(Path(__file__).parents[1] / "acs_core"))
    import tiny_models

    return tiny_models.save_internvl(tmp_path_factory.mktemp("model"))


@pytest.fixture
def domain() -> int:
    return 1 + (os.getpid() + 50) % 100


def header(stamp: int) -> Header:
    made = Header(frame_id="camera_optical")
    made.stamp.sec = stamp
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
        reply = client.ask_about(header(3), picture(), phrase, LONG_S)
        assert reply is not None
        assert reply.detections.header == reply.candidates.header == header(3)
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
        (["-p", "samples:=many"], "samples must be a int, got 'many'"),
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
        from acs_ros.node_process import NodeProcess
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


def question(stamp: int) -> BagFrame:
    return BagFrame(stamp, picture(10 * stamp), (("key", Box(1, 1, 9, 9)),))


def test_the_demo_plays_a_bag_and_writes_what_it_promises(model, tmp_path, capsys):
    write_bag(tmp_path / "bag", [question(i) for i in (1, 2)])
    out = tmp_path / "out"
    arguments = ["--bag", str(tmp_path / "bag"), "--model", str(model), "--selector", "greedy", "--out", str(out)]
    assert demo.main(arguments) == 0
    assert "answered 2 of 2 frames" in capsys.readouterr().out
    assert len(list((out / "frames").glob("*.png"))) == 2 and (out / "contact_sheet.png").is_file()
    assert json.loads((out / "results.json").read_text())["summary"]["answered"] == 2
    assert [f.truth for f in read_bag(out / "result_bag")] == [question(i).truth for i in (1, 2)]


@pytest.mark.parametrize("shipped", ["tiny-internvl", "tiny-qwen2.5-vl"])
def test_the_shipped_models_find_what_the_shipped_bag_asks_for(shipped, tmp_path, capsys):
    out = tmp_path / "out"
    assert demo.main(["--model", shipped, "--frames", "12", "--seed", "1", "--out", str(out)]) == 0
    assert "answered 12 of 12 frames" in capsys.readouterr().out
    results = json.loads((out / "results.json").read_text())
    assert results["summary"]["score_kind"] == "calibrated"
    found = [f for f in results["frames"] if f["box"]]
    assert all(0 <= f["score"] <= 1 and f["class_id"] == f["phrase"] for f in found)
    assert sum(f["iou"] >= 0.5 for f in found) >= 3


def test_the_demo_fails_loudly_when_the_model_does_not_load(tmp_path, capsys):
    write_bag(tmp_path / "bag", [question(1)])
    arguments = ["--bag", str(tmp_path / "bag"), "--model", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]
    assert demo.main(arguments) == 1
    shown = capsys.readouterr()
    assert "could not configure" in shown.err and "nowhere" in shown.err
    assert "cannot configure" in shown.out  # the node's own last lines


def test_the_result_bag_has_every_frame_once_with_all_its_truths(result, tmp_path):
    truths = (("key", Box(1, 1, 9, 9)), ("mug", Box(20, 20, 40, 40)))
    shown = [BagFrame(1, picture(10), truths), BagFrame(2, picture(20), truths[:1])]
    replies = [
        Reply(detections_to_message(f.header, answer), candidates_to_message(f.header, answer), 5.0)
        for f, answer in ((shown[0], result("key")), (shown[0], result("mug")), (shown[1], result("key")))
    ]
    asked = [(0, *truths[0]), (0, *truths[1]), (1, *truths[0])]
    rows = [Row.of(n, shown[n], phrase, box, r) for (n, phrase, box), r in zip(asked, replies, strict=True)]
    demo._write_result_bag(tmp_path / "bag", rows)
    got = list(read_bag(tmp_path / "bag"))
    assert [(f.stamp_ns, f.truth) for f in got] == [(f.stamp_ns, f.truth) for f in shown]
    with Reader(tmp_path / "bag") as bag:
        counts = {c.topic: c.msgcount for c in bag.connections}
    assert counts == {
        "/camera/image": 2,
        "/ground_truth": 2,
        "/grounding/candidates": 3,
        "/grounding/detections": 3,
    }


def test_the_demo_fails_loudly_when_the_node_contradicts_itself(result, tmp_path, capsys, monkeypatch):
    frame = question(1)
    write_bag(tmp_path / "bag", [frame])
    answer = result("key")
    moved = replace(answer, detections=(Detection(Box(0, 0, 8, 8), 0.75, 0),))
    reply = Reply(detections_to_message(frame.header, moved), candidates_to_message(frame.header, answer), 5.0)
    monkeypatch.setattr(demo, "NodeProcess", Mute)
    monkeypatch.setattr(demo, "NodeClient", Mute)
    monkeypatch.setattr(Mute, "ask_about", lambda *ignored: reply, raising=False)
    monkeypatch.setattr(Mute, "last_lines", lambda *ignored: "its last words", raising=False)
    assert demo.main(["--bag", str(tmp_path / "bag"), "--out", str(tmp_path / "out")]) == 1
    assert "is no selected candidate" in capsys.readouterr().err


class Mute:
    """Stands for the node's process and its client: comes up, and never answers."""

    exit_code = None

    def __init__(self, *ignored):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *ignored):
        pass

    def __getattr__(self, name):
        return lambda *ignored: None


def test_the_demo_fails_loudly_when_answers_stay_out(tmp_path, capsys, monkeypatch):
    write_bag(tmp_path / "bag", [question(1)])
    monkeypatch.setattr(demo, "NodeProcess", Mute)
    monkeypatch.setattr(demo, "NodeClient", Mute)
    assert demo.main(["--bag", str(tmp_path / "bag"), "--out", str(tmp_path / "out")]) == 1
    shown = capsys.readouterr()
    assert "no answer" in shown.out and "FAILED: only 0 of 1 frames got an answer" in shown.err


def test_ctrl_c_ends_the_demo_and_its_node(tmp_path, until):
    write_bag(tmp_path / "bag", [question(1)])
    command = [sys.executable, "-m", "acs_ros.demo", "--bag", str(tmp_path / "bag"), "--out", str(tmp_path / "out")]
    playing = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def find_node() -> str | None:
        children = Path(f"/proc/{playing.pid}/task/{playing.pid}/children").read_text().split()
        return next((c for c in children if b"acs_ros.main" in Path(f"/proc/{c}/cmdline").read_bytes()), None)

    node = until(find_node, "the node's process")
    # not when it is forked: Python drops what Ctrl-C raises in that moment
    until(lambda: len(list(Path(f"/proc/{node}/task").iterdir())) > 1, "the node's threads")
    playing.send_signal(signal.SIGINT)
    _, said = playing.communicate(timeout=LONG_S)
    assert playing.returncode == 130 and said.splitlines()[-1] == "demo: stopped"
    until(lambda: gone(node), "the node to end")


def test_the_demo_refuses_a_bag_that_asks_nothing(tmp_path, capsys):
    write_bag(tmp_path / "bag", [BagFrame(1, picture(), ())])
    assert demo.main(["--bag", str(tmp_path / "bag"), "--out", str(tmp_path / "out")]) == 1
    assert "nothing can be asked" in capsys.readouterr().err
