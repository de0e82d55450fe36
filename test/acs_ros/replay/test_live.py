"""Bags played to a node over real DDS."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from process_parts import gone
from rclpy.serialization import serialize_message
from rosbags.highlevel import AnyReader

from acs_core.evaluation.storage import load
from acs_ros.bags.bags import DEMO_BAG, BagFrame
from acs_ros.bags.frames import FrameAt
from acs_ros.errors import NodeTrouble
from acs_ros.files import shipped_file
from acs_ros.node import publishers
from acs_ros.replay.live import PlaybackClock, Player


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


def test_frames_that_newer_ones_overtook_are_dropped(play, make_bag, grounder, rig, monkeypatch):
    """The model is held until the last frame waits: it is answered, and whichever the model had begun."""
    grounder.gate.clear()
    submit = rig.node.query_manager._worker.submit

    def hand_in(frame, stream):
        replaced = submit(frame, stream)
        if frame.header.stamp.sec == 1:  # the last one
            grounder.gate.set()
        return replaced

    monkeypatch.setattr(rig.node.query_manager._worker, "submit", hand_in)
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


def test_in_lockstep_no_frame_is_dropped(play, make_bag, grounder):
    """All frames are asked for the same phrase: at the bag's pace newer ones would overtake the others."""
    told = play(make_bag(), "--query", "key", "--lockstep")
    assert told.code == 0, told.err
    assert fates(told) == {"total": 4, "answered": 4} and len(grounder.calls) == 4
    assert "frame by frame, each when the one before is answered" in told.out


def test_answers_that_stay_out_fail_a_run_that_needs_them(play, make_bag, frames, grounder):
    grounder.error = RuntimeError("boom")
    told = play(make_bag(frames=frames(1)), "--query", "key", "--lockstep", "--min-answered", "0.9", quiet=2)
    assert told.code == 1 and "no answer" in told.out
    assert "FAILED: only 0 of 1 frames were answered, --min-answered asks for 90%" in told.err


def test_a_node_that_contradicts_itself_fails_the_run_however_many_frames_may_stay_without_answer(
    play, make_bag, grounder, monkeypatch
):
    """One of four frames has a score on ~/detections that ~/candidates does not have."""
    publish, composed = publishers.detections_to_message, []

    def to_message(header, result):
        message = publish(header, result)
        composed.append(message)
        if len(composed) == 2:
            message.detections[0].results[0].hypothesis.score = 0.125
        return message

    monkeypatch.setattr(publishers, "detections_to_message", to_message)
    told = play(make_bag(), "--query", "key", "--lockstep", "--min-answered", "0.5")
    assert told.code == 1
    assert fates(told) == {"total": 4, "answered": 3, "failed": 1}
    assert "FAILED: the node contradicts itself in 1 of 4 frames; frame 1, key: the box" in told.err
    assert "with score 0.125 on ~/detections is no selected candidate of ~/candidates" in told.err
    assert (told.folder / "report.html").is_file()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    import tiny_models

    return tiny_models.save_internvl(tmp_path_factory.mktemp("model"))


def warnings(folder):
    """Warnings of the started node but those about other nodes: stamps of 1970, which the bag has, and pauses, which
    acs-replay makes, are nothing that its user could change."""
    lines = (folder / "node.log").read_text().splitlines()
    assert any("[INFO]" in line for line in lines)
    return [line for line in lines if ("[WARN]" in line or "[ERROR]" in line) and "more node" not in line]


STARTED = ("--live", "--start-node", "--lockstep", "--wait", "200", "--timeout", "60")


@pytest.mark.processes
def test_a_bag_is_played_to_a_started_node_and_everything_promised_is_written(model, make_bag, frames, replay):
    told = replay(make_bag(frames=frames(2)), *STARTED, "--model", model, "--selector", "greedy")
    assert told.code == 0, told.err
    assert "answered 2 of 2 frames" in told.out
    assert warnings(told.folder) == []
    assert len(list((told.folder / "frames").iterdir())) == 2 and (told.folder / "contact_sheet.png").is_file()
    assert len((told.folder / "tables" / "per-frame.csv").read_text().splitlines()) == 3
    with AnyReader([told.folder / "bag"]) as bag:
        (truths,) = [c for c in bag.connections if c.topic == "/ground_truth"]
        labels = [bag.deserialize(raw, truths.msgtype).detections for _, _, raw in bag.messages([truths])]
    assert [[d.results[0].hypothesis.class_id for d in found] for found in labels] == [["key"]] * 2


@pytest.mark.processes
@pytest.mark.parametrize("shipped", ["tiny-internvl", "tiny-qwen2.5-vl"])
def test_the_shipped_models_find_what_the_shipped_bag_asks_for(shipped, replay, tmp_path):
    """As `make demo` does it."""
    params = ("--params", shipped_file(f"config/{shipped.replace('-', '_').replace('.', '_')}.yaml"))
    wanted = ("--frames", "12", "--seed", "1", "--min-answered", "0.9", "--json", tmp_path / "all.json")
    told = replay(DEMO_BAG, *STARTED, *params, "--model", shipped, *wanted)
    assert told.code == 0, told.err
    assert "answered 12 of 12 frames" in told.out
    assert warnings(told.folder) == []
    results = json.loads((tmp_path / "all.json").read_text())
    assert results["facts"]["score"] == "calibrated"
    found = [q for q in results["questions"] if q["box"]]
    assert all(0 <= q["score"] <= 1 for q in found)
    assert sum((q["iou"] or 0.0) >= 0.5 for q in found) >= 6
    assert any(q["iou"] is None for q in results["questions"]), "one question asks for what is not there"


@pytest.mark.processes
def test_a_model_that_does_not_load_is_told_with_the_last_lines_of_the_node(make_bag, replay, tmp_path):
    (tmp_path / "nowhere").mkdir()
    told = replay(make_bag(), *STARTED, "--model", tmp_path / "nowhere")
    assert told.code == 1
    assert "could not configure" in told.err and "nowhere" in told.err and "node.log" in told.err
    assert "the last lines of the node:" in told.out and "cannot configure" in told.out


@pytest.mark.processes
def test_ctrl_c_ends_the_run_and_its_node(make_bag, tmp_path, until):
    command = [sys.executable, "-m", "acs_ros.replay.cli", str(make_bag()), *STARTED, "--out", str(tmp_path / "out")]
    playing = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def find_node() -> str | None:
        children = Path(f"/proc/{playing.pid}/task/{playing.pid}/children").read_text().split()
        return next((c for c in children if b"acs_ros.main" in Path(f"/proc/{c}/cmdline").read_bytes()), None)

    node = until(find_node, "the node's process")
    # not when it is forked: Python drops what Ctrl-C raises in that moment
    until(lambda: len(list(Path(f"/proc/{node}/task").iterdir())) > 1, "the node's threads")
    playing.send_signal(signal.SIGINT)
    _, said = playing.communicate(timeout=300)
    assert playing.returncode == 130 and said.splitlines()[-1].startswith("acs-replay: stopped")
    until(lambda: gone(node), "the node to end")


def test_a_bag_that_asks_nothing_is_refused(make_bag, replay):
    told = replay(make_bag(truth=False), *STARTED)
    assert told.code == 1 and "nothing can be asked" in told.err


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=10).map(sorted), st.floats(0.01, 100))
def test_frames_are_due_as_far_apart_as_they_were_recorded(times, rate):
    now = [7.0]
    pace = PlaybackClock(rate, lambda: now[0])
    for at in times:
        left = pace.left(at)
        assert left == pytest.approx(max(0.0, (at - times[0]) / 1e9 / rate - (now[0] - 7.0)), abs=1e-6)
        now[0] += max(0.0, left)


def test_after_a_pause_the_rest_keeps_its_distances():
    now = [0.0]
    pace = PlaybackClock(2.0, lambda: now[0])
    pace.left(0)
    now[0] = 100.0
    pace.restart(10**9)
    assert pace.left(10**9) == 0.0 and pace.left(3 * 10**9) == 1.0


def test_recorded_bytes_reach_the_node_and_its_answer_comes_back(rig, image, until):
    rig.ask("key")
    frame = FrameAt(0, 1, 1_000_000_000, "camera_optical")
    with Player("/grounding", "/grounding/image", False, rig.domain) as player:
        player.wait_for_node(30)
        until(lambda: rig.node.count_subscribers("/grounding/candidates") == 2, "the player's subscription")
        sent = player.send(frame, ("key",), bytes(serialize_message(image(stamp=1))))
        until(lambda: player.heard and player.candidates, "the answer")
    (heard,) = player.heard
    assert heard.msg.header.stamp.sec == 1 and heard.at >= sent.at
    assert player.candidates[0].phrase == "key"


@pytest.mark.parametrize(
    ("node", "topic", "said"),
    [
        ("/elsewhere", "/grounding/image", "nobody publishes /elsewhere/detections"),
        ("/grounding", "/other/image", "nobody hears images on /other/image: --publish-to"),
    ],
)
def test_what_is_missing_is_named(rig, until, node, topic, said):
    with Player(node, topic, False, rig.domain) as player:
        until(lambda: rig.node.count_subscribers(f"{node}/detections"), "the discovery")
        until(lambda: player._node.count_publishers("/grounding/detections"), "the discovery")
        with pytest.raises(NodeTrouble, match=said):
            player.wait_for_node(0.1)
