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

# The node hears cameras best effort, and a busy machine may lose a frame: here none may get lost.
RELIABLE = {"qos_overrides./grounding/image.subscription.reliability": "reliable"}


@pytest.fixture
def rig(make_rig, grounder):
    made = make_rig(lambda settings: grounder, **RELIABLE)
    made.activate()
    yield made
    grounder.gate.set()


@pytest.fixture
def play(rig, replay, monkeypatch):
    """Plays a bag to the rig's node, at a rate at which it has time for every frame unless told otherwise."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(rig.domain))

    def run(bag, *arguments, quiet=60):
        return replay(bag, "--live", "--quiet", quiet, *arguments)

    return run


def test_every_frame_of_a_slow_bag_is_answered_with_what_was_published(play, make_bag, grounder, tmp_path):
    told = play(make_bag(), "--query", "key", "--rate", "0.3", "--json", tmp_path / "all.json")
    assert told.code == 0, told.err
    assert "answered 4 100.0" in told.out
    assert "frames published: 4; frames that reached the node: 4;" in told.out
    (group,) = load(told.folder / "evaluation.json").groups
    assert all(
        a.boxes == q.truth and a.latency_ms > 0 for a, q in zip(group.runs[0].answers, group.questions, strict=True)
    )
    assert [round(float(image.mean())) for image, _, _ in grounder.calls] == [0, 10, 20, 30]
    questions = json.loads((tmp_path / "all.json").read_text())["questions"]
    assert all(q["box"] == [1.0, 2.0, 4.0, 5.0] and q["score"] == 0.75 for q in questions)


def test_frames_that_newer_ones_overtook_are_dropped(rig, play, make_bag, grounder, until):
    """The first frame is held until all others were sent: of those the node keeps the newest."""
    grounder.gate.clear()
    ask = grounder.ground

    def ground(image, phrase, **options):
        if len(grounder.calls) == 0:

            def open_gate():
                until(lambda: rig.node.ledger.facts().images == 4, "the other frames")
                grounder.gate.set()

            threading.Thread(target=open_gate).start()
        return ask(image, phrase, **options)

    grounder.ground = ground
    told = play(make_bag(), "--query", "key")
    assert told.code == 0, told.err
    assert "dropped: a newer frame was answered instead 2 50.0" in told.out
    assert "answered 2 50.0" in told.out and "frames replaced in the node by newer ones: 2" in told.out
    assert len(load(told.folder / "evaluation.json").groups[0].questions) == 2


def test_frames_without_any_answer_are_unanswered(play, make_bag, grounder):
    grounder.error = RuntimeError("boom")
    told = play(make_bag(), "--query", "key", quiet=3)
    assert told.code == 1 and "no frame was answered" in told.err
    assert "unanswered: no answer, nor one to a newer frame 4" in told.out
    counted = {name: int(n) for name, n in re.findall(r"frames ([a-z ]+): (\d+)", told.out)}
    assert counted["lost on the way"] == 0 and counted["the node failed on"] > 0
    assert counted["the node failed on"] + counted["replaced in the node by newer ones"] == 4


def test_phrases_change_with_the_recorded_queries(play, make_bag, grounder):
    told = play(make_bag(queries=((1, "key"), (600_000_000, "cup; dog"))))
    assert told.code == 0, told.err
    asked = [(round(float(image.mean())), phrase) for image, phrase, _ in grounder.calls]
    # The frame at work begins again when the query changes.
    assert [a for a in asked if a in ((0, "key"), (20, "cup"), (20, "dog"), (30, "cup"), (30, "dog"))]
    assert "asked: queries on /grounding/query" in told.out


def test_where_phrases_are_those_of_the_labels_each_is_answered_before_the_next(play, make_bag, frames, grounder):
    mixed = [BagFrame(f.stamp_ns, f.image, ((f"thing {i}", f.truth[0][1]),)) for i, f in enumerate(frames(3))]
    told = play(make_bag(frames=mixed), "--rate", "1000")
    assert told.code == 0 and "answered 3 100.0" in told.out
    assert [phrase for _, phrase, _ in grounder.calls] == ["thing 0", "thing 1", "thing 2"]


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
