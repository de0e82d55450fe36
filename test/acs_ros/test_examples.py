"""The example clients, run as they are against a node over DDS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from acs_core.geometry import Box
from acs_ros.errors import NodeTrouble
from acs_ros.examples import ask_by_action, ask_by_service, ask_by_topic

PATIENT = ["--timeout", "300"]  # what is asked is answered, also on a busy machine


@pytest.fixture
def domain(rig, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(rig.domain))
    return rig.domain


def test_asking_by_topic(rig, domain, image, until, capsys):
    streaming = rig.peer.create_timer(0.02, lambda: rig.images.publish(image()))
    assert ask_by_topic.main(["key; mug", "--answers", "2", *PATIENT]) == 0
    streaming.cancel()
    assert "key: score 0.75, centre (2, 4)" in capsys.readouterr().out
    assert rig.node.query_manager.queries == ("key", "mug")


def test_no_answer_by_topic_is_said(domain, capsys):
    assert ask_by_topic.main(["key", "--timeout", "0.5"]) == 1
    assert "only 0 answers within 0.5 s" in capsys.readouterr().err


def test_asking_by_service(rig, domain, capsys):
    assert ask_by_service.main(["key", "red mug", *PATIENT]) == 0
    assert ask_by_service.main(PATIENT) == 0
    assert ask_by_service.main(["--pause", *PATIENT]) == 0
    assert rig.node.query_manager.held
    assert capsys.readouterr().out.splitlines() == [
        "asking for 'key', 'red mug'",
        "continuous: key, red mug",
        "paused",
    ]
    assert ask_by_service.main(["x" * 300, *PATIENT]) == 1
    assert "300 characters" in capsys.readouterr().out
    assert ask_by_service.main(["--node", "/nobody", "--timeout", "0.2"]) == 1


@pytest.mark.parametrize(("example", "method"), [(ask_by_service, "set_queries"), (ask_by_topic, "publish_query")])
def test_trouble_of_the_node_is_one_line(domain, example, method, monkeypatch, capsys):
    def trouble(*_):
        raise NodeTrouble("ROS was shut down")

    monkeypatch.setattr(example.GroundingClient, method, trouble)
    assert example.main(["key", *PATIENT]) == 1
    said = capsys.readouterr()
    assert (said.out + said.err).endswith("ROS was shut down\n") and "Traceback" not in said.err


def test_asking_by_action_about_a_picture(rig, grounder, domain, tmp_path, capsys):
    PIL.Image.fromarray(np.full((30, 40, 3), 90, np.uint8)).save(tmp_path / "photo.png")
    assert ask_by_action.main(["key", "--picture", str(tmp_path / "photo.png"), "--samples", "4", *PATIENT]) == 0
    assert "key: score 0.75" in capsys.readouterr().out
    assert grounder.calls[0][2]["sampling"].num_samples == 4
    assert ask_by_action.main([" ", *PATIENT]) == 1
    assert "the phrase is empty" in capsys.readouterr().out


def test_asking_by_action_about_a_region(rig, grounder, domain, tmp_path, capsys):
    PIL.Image.fromarray(np.full((30, 40, 3), 90, np.uint8)).save(tmp_path / "photo.png")
    picture = ["--picture", str(tmp_path / "photo.png"), *PATIENT]
    assert ask_by_action.main(["key", "--region", "4,2,20,10", *picture]) == 0
    assert grounder.calls[0][2]["region"] == Box(4, 2, 24, 12)
    assert ask_by_action.main(["key", "--region", "4,2,0,10", *picture]) == 1
    assert "has no area" in capsys.readouterr().out
    for wrong in ("1,2,3", "1,2,3,x", "1,2,3,-4", "1,2,3,99999999"):
        with pytest.raises(SystemExit):
            ask_by_action.main(["key", f"--region={wrong}"])
        assert "must be X,Y,WIDTH,HEIGHT" in capsys.readouterr().err


def test_a_picture_that_cannot_be_read_is_named(tmp_path, capsys):
    assert ask_by_action.main(["key", "--picture", str(tmp_path / "no\x1bne.png")]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("ask_by_action: ") and "no\N{REPLACEMENT CHARACTER}ne.png: No such file" in said


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
    assert client.returncode == 130 and said.splitlines()[-1] == "ask_by_action: stopped"
    assert "s  sampling" in shown
    until(lambda: rig.node.goals.count == 0, "the end of the goal")
