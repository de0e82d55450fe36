"""The example clients, run as they are against a node over DDS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import rclpy
from acs_msgs.action import Ground

from acs_ros.examples import ask_by_action, ask_by_service, ask_by_topic


@pytest.fixture
def domain(rig, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(rig.domain))
    return rig.domain


def test_asking_by_topic(rig, domain, image, until, capsys):
    streaming = rig.peer.create_timer(0.02, lambda: rig.images.publish(image()))
    assert ask_by_topic.main(["key; mug", "--answers", "2"]) == 0
    streaming.cancel()
    assert "key: score 0.75, centre (2, 4)" in capsys.readouterr().out
    assert rig.node.asker.queries == ("key", "mug")


def test_no_answer_by_topic_is_said(domain, capsys):
    assert ask_by_topic.main(["key", "--timeout", "0.5"]) == 1
    assert "only 0 answers within 0.5 s" in capsys.readouterr().err


def test_asking_by_service(rig, domain, capsys):
    assert ask_by_service.main(["key", "red mug"]) == 0
    assert ask_by_service.main([]) == 0
    assert ask_by_service.main(["--pause"]) == 0
    assert rig.node.asker.held
    assert capsys.readouterr().out.splitlines() == [
        "asking for 'key', 'red mug'",
        "continuous: key, red mug",
        "paused",
    ]
    assert ask_by_service.main(["x" * 300]) == 1
    assert "300 characters" in capsys.readouterr().out
    assert ask_by_service.main(["--node", "/nobody", "--timeout", "0.2"]) == 1


def test_asking_by_action_about_a_picture(rig, grounder, domain, tmp_path, capsys):
    PIL.Image.fromarray(np.full((30, 40, 3), 90, np.uint8)).save(tmp_path / "photo.png")
    assert ask_by_action.main(["key", "--picture", str(tmp_path / "photo.png"), "--samples", "4"]) == 0
    assert "key: score 0.75" in capsys.readouterr().out
    assert grounder.calls[0][2]["sampling"].num_samples == 4
    assert ask_by_action.main([" ", "--timeout", "10"]) == 1
    assert "the phrase is empty" in capsys.readouterr().out


def test_ctrl_c_cancels_the_goal(rig, grounder, domain, image, until):
    grounder.gate.clear()
    streaming = rig.peer.create_timer(0.05, lambda: rig.images.publish(image()))
    command = [sys.executable, "-m", "acs_ros.examples.ask_by_action", "key"]
    client = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: grounder.running, "the model at work")
    client.send_signal(signal.SIGINT)
    until(lambda: not grounder.running, "the model to stop")
    shown, said = client.communicate(timeout=60)
    streaming.cancel()
    assert client.returncode == 130 and said.splitlines()[-1] == "cancelled"
    assert "s  sampling" in shown
    until(lambda: rig.node.goals.count == 0, "the end of the goal")


def test_ctrl_c_ends_the_wait_for_a_node_that_is_not_there(domain):
    with rclpy.init():
        client = ask_by_action.GroundClient("/nobody")
        client.stop()
        with pytest.raises(KeyboardInterrupt):
            client.ask(Ground.Goal(phrase="key"), 1e9)
        with pytest.raises(KeyboardInterrupt):  # whatever it waits for
            client.stop()
        client.destroy_node()
