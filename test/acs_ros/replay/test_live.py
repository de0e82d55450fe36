"""Bags played to a node over real DDS."""

from __future__ import annotations

import json
import re
import sys
import threading
from pathlib import Path

import pytest

from acs_eval.storage import load
from acs_ros.bags import BagFrame
from acs_ros.replay.player import Player


@pytest.fixture
def play(rig, replay, tmp_path, monkeypatch):
    """Plays a bag to the rig's node, which on a busy machine may miss frames: no test counts on it."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(rig.domain))
    (tmp_path / "out").mkdir()

    def run(bag, *arguments, quiet=60):
        return replay(bag, "--live", "--quiet", quiet, "--json", tmp_path / "out" / "all.json", *arguments)

    return run


def counted(told) -> dict[str, int]:
    """What the node counted."""
    return {name: int(n) for name, n in re.findall(r"frames ([a-z ]+): (\d+)", told.out)}


def fates(told) -> dict[str, int]:
    """How many frames were answered, dropped, ..."""
    return {k: v for k, v in json.loads((told.folder / "all.json").read_text())["frames"].items() if v}


def test_frames_that_newer_ones_overtook_are_dropped(play, make_bag, grounder, monkeypatch):
    """The model is held until all frames were sent: the newest of them is answered, and whichever it had begun."""
    grounder.gate.clear()
    send, sent = Player.send, []

    def count(player, *frame):
        sent.append(send(player, *frame))
        if len(sent) == 4:
            threading.Timer(3.0, grounder.gate.set).start()
        return sent[-1]

    monkeypatch.setattr(Player, "send", count)
    told = play(make_bag(), "--query", "key")
    assert told.code == 0, told.err
    found = fates(told)
    assert set(found) == {"total", "answered", "dropped"} and found["answered"] <= 2
    node = counted(told)
    assert node["replaced in the node by newer ones"] + node["lost on the way"] == found["dropped"]
    questions = load(told.folder / "evaluation.json").groups[0].questions
    assert len(questions) == found["answered"] and questions[-1].key == "1.000000000:key"


def test_frames_without_any_answer_are_unanswered(play, make_bag, grounder):
    grounder.error = RuntimeError("boom")
    told = play(make_bag(), "--query", "key", quiet=3)
    assert told.code == 1 and "no frame was answered" in told.err
    assert fates(told) == {"total": 4, "unanswered": 4}
    node = counted(told)
    assert node["the node failed on"] > 0
    assert node["the node failed on"] + node["replaced in the node by newer ones"] + node["lost on the way"] == 4


def test_phrases_change_with_the_recorded_queries(play, make_bag, grounder):
    told = play(make_bag(queries=((1, "key"), (800_000_000, "cup; dog"))))
    assert told.code == 0, told.err
    assert "asked: queries on /grounding/query" in told.out
    asked = [(round(float(image.mean())), phrase) for image, phrase, _ in grounder.calls]
    assert asked[-2:] == [(30, "cup"), (30, "dog")]  # the last frame, which nothing overtakes
    assert {phrase for shown, phrase in asked if shown < 20} <= {"key"}


def test_where_phrases_are_those_of_the_labels_each_is_answered_before_the_next(play, make_bag, frames, grounder):
    mixed = [BagFrame(f.stamp_ns, f.image, ((f"thing {i}", f.truth[0][1]),)) for i, f in enumerate(frames(4))]
    told = play(make_bag(frames=mixed), "--rate", "1000")
    assert told.code == 0, told.err
    assert fates(told) == {"total": 4, "answered": 4} and counted(told)["that reached the node"] == 4
    asked = [(round(float(image.mean())), phrase) for image, phrase, _ in grounder.calls]
    assert asked == [(10 * i, f"thing {i}") for i in range(4)]
    (group,) = load(told.folder / "evaluation.json").groups
    answers = group.runs[0].answers
    assert [a.boxes for a in answers] == [q.truth for q in group.questions] and all(a.latency_ms > 0 for a in answers)
    assert [a.scores for a in answers] == [(0.75,)] * 4


def test_a_node_that_is_not_there_is_named(replay, make_bag):
    told = replay(make_bag(), "--live", "--query", "key", "--node", "/nowhere", "--wait", "1")
    assert told.code == 1 and "there is no node /nowhere: start it, name another with --node, or use" in told.err


def test_a_node_that_is_not_active_is_told(make_rig, grounder, replay, make_bag, monkeypatch):
    rig = make_rig(lambda settings: grounder)
    monkeypatch.setenv("ROS_DOMAIN_ID", str(rig.domain))
    told = replay(make_bag(), "--live", "--query", "key", "--wait", "20")
    assert told.code == 1 and "/grounding is unconfigured: ros2 lifecycle set /grounding configure" in told.err


@pytest.mark.processes
def test_a_node_is_started_and_ended(make_bag, replay, tmp_path):
    sys.path.insert(0, str(Path(__file__).parents[2] / "acs_core"))
    import tiny_models

    model = tiny_models.save_internvl(tmp_path / "model")
    quick = ["--selector", "greedy", "-p", "max_new_tokens:=8", "-p", "diagnostics_period:=0.2"]
    told = replay(
        make_bag(compressed=True, storage="sqlite3"),
        *("--live", "--start-node", "--node", "/robot/finder", "--query", "key", "--rate", "0.5", "--wait", "200"),
        *("--model", model, *quick),
    )
    assert told.code == 0, told.err + (told.folder / "node.log").read_text()
    assert "frames published: 4" in told.out and "[robot.finder]" in (told.folder / "node.log").read_text()
    # Random weights: whether there are boxes does not matter.
