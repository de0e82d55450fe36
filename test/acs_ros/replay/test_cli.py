"""The command from end to end on a fake grounder: what it prints, writes, and says when something is wrong."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from rclpy.serialization import serialize_message
from rosbags.highlevel import AnyReader
from std_msgs.msg import String

from acs_core.errors import ModelError
from acs_core.geometry import Box
from acs_eval.storage import load
from acs_ros.bags import BagFrame, BagWriter
from acs_ros.replay.cli import main


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_bag_with_its_own_truth_is_evaluated(make_bag, replay, tmp_path, storage, compressed):
    told = replay(make_bag(storage=storage, compressed=compressed), "--json", tmp_path / "all.json")
    assert told.code == 0, told.err
    assert "4 frames on /camera/image (" + ("CompressedImage)" if compressed else "Image)") in told.out
    assert "answered 4 100.0" in told.out and "note:" not in told.out
    evaluation = load(told.folder / "evaluation.json")
    (group,) = evaluation.groups
    assert evaluation.title == "bag: fake" and len(group.questions) == 4
    assert all(a.boxes == q.truth for a, q in zip(group.runs[0].answers, group.questions, strict=True))
    assert all((told.folder / q.image).is_file() for q in group.questions)
    data = json.loads((tmp_path / "all.json").read_text())
    assert data["frames"]["answered"] == 4 and [q["iou"] for q in data["questions"]] == [1.0] * 4
    (scores,) = (t["rows"][0] for t in data["tables"] if t["name"] == "scores")
    assert scores["Acc@0.5 %"]["value"] == scores["F1 %"]["value"] == 100.0 and scores["ECE %"] == 25.0
    assert (told.folder / "tables" / "phrases.csv").read_text().startswith("phrase,asked,boxes,")
    page = (told.folder / "report.html").read_text()
    assert "bag: fake" in page and page.count("data:image/webp;base64,") >= 4 and "/camera/image" in page
    with AnyReader([told.folder / "bag"]) as bag:
        assert "/grounding/detections" in bag.topics
    assert any((told.folder / "bag").glob("*" + {"mcap": ".mcap", "sqlite3": ".db3"}[storage]))


def test_without_truth_it_says_that_accuracy_is_unknown(make_bag, replay):
    told = replay(make_bag(truth=False), "--query", "key; cup")
    assert told.code == 0
    assert "ground truth: none" in told.out and "Accuracy is unknown" in told.out and "How good" not in told.out
    assert load(told.folder / "evaluation.json").groups == ()


def test_recorded_queries_are_asked_as_they_were(make_bag, replay, grounder):
    told = replay(make_bag(queries=((300_000_000, "cup"), (800_000_000, "key; dog"))))
    assert told.code == 0
    assert [phrase for _, phrase, _ in grounder.calls] == ["cup", "cup", "key", "dog"]
    assert "note: nothing was asked of 1 frames" in told.out and "not asked: no phrase was in force 1" in told.out


def test_a_second_run_asks_nothing_again_and_other_settings_begin_anew(make_bag, replay, grounder):
    bag = make_bag()
    first = replay(bag)
    again = replay(bag)
    assert len(grounder.calls) == 4 and "4 answers are here already" in again.out
    assert first.out.split("What became")[1] == again.out.split("What became")[1]
    other = replay(bag, "--samples", "3")
    assert len(grounder.calls) == 8 and "new settings: every frame is asked anew" in other.out


def coco(make_bag, replay, tmp_path, frames=None):
    """A bag without truth, its frames extracted, and all of them labelled."""
    bag = make_bag(truth=False, frames=frames)
    told = replay(bag, "--extract", tmp_path / "labels")
    assert told.code == 0 and "frames in" in told.out
    file = tmp_path / "labels" / "instances.json"
    content = json.loads(file.read_text())
    content["categories"] = [{"id": 1, "name": "key"}]
    content["annotations"] = [{"image_id": i["id"], "category_id": 1, "bbox": [1, 2, 3, 3]} for i in content["images"]]
    return bag, file, content


def test_extracted_frames_come_back_as_truth(make_bag, replay, tmp_path):
    bag, file, content = coco(make_bag, replay, tmp_path)
    for image in content["images"]:
        del image["stamp"]  # as label tools do with fields they do not know
    file.write_text(json.dumps(content))
    told = replay(bag, "--coco", file)
    assert told.code == 0 and "ground truth: " in told.out and "note:" not in told.out
    (group,) = load(told.folder / "evaluation.json").groups
    assert [q.truth for q in group.questions] == [(Box(1, 2, 4, 5),)] * 4


def test_extracting_never_overwrites_labels(make_bag, replay, tmp_path):
    bag, file, _ = coco(make_bag, replay, tmp_path)
    before = file.read_text()
    told = replay(bag, "--extract", tmp_path / "labels")
    assert told.code == 1 and "it may have labels in it" in told.err and file.read_text() == before


def test_labels_of_another_size_are_left_out(make_bag, replay, tmp_path):
    bag, file, content = coco(make_bag, replay, tmp_path)
    content["images"][1] |= {"width": 80, "height": 60}
    file.write_text(json.dumps(content))
    told = replay(bag, "--coco", file)
    assert "1 frames were labelled at another size (the first at 80 x 60, the frame has 40 x 30)" in told.out
    assert len(load(told.folder / "evaluation.json").groups[0].questions) == 3


def test_frames_and_labels_that_do_not_match_are_counted(make_bag, replay, tmp_path):
    bag, file, content = coco(make_bag, replay, tmp_path)
    content["images"] = [*content["images"][:2], {"id": 9, "file_name": "elsewhere.png"}]
    file.write_text(json.dumps(content))
    told = replay(bag, "--coco", file)
    assert "note: 1 of 3 labelled pictures match no frame: elsewhere.png" in told.out
    assert "note: 2 of 4 frames have no ground truth" in told.out


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_truncated_bag_is_evaluated_up_to_where_it_breaks(make_bag, frames, replay, storage):
    folder = make_bag(frames=frames(8, noise=True), storage=storage)
    file = next(f for f in folder.iterdir() if f.suffix in (".mcap", ".db3"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 3 // 4])
    told = replay(folder)
    assert told.code == 0, told.err
    assert told.out.count("note: the bag is damaged: it breaks after the message of") == 1
    evaluation = load(told.folder / "evaluation.json")
    assert 3 <= len(evaluation.groups[0].questions) < 8
    assert "the bag is damaged" in evaluation.facts["note 1"]


def test_messages_that_cannot_be_decoded_are_counted_and_skipped(tmp_path, frames, replay):
    with BagWriter(tmp_path / "bag") as bag:
        for number, frame in enumerate(frames(3)):
            bag.write_frame(frame)
            raw = {c.topic: c for c in bag._writer.connections}
            # A header, and then nothing of an image.
            start = frame.image_message if number else frames(9)[8].image_message
            bag._writer.write(raw["/camera/image"], frame.stamp_ns + 1, bytes(serialize_message(start))[:60])
            bag._writer.write(raw["/ground_truth"], frame.stamp_ns + 1, b"\x00\x01\x00\x00\xff")
    told = replay(tmp_path / "bag", "--query", "key")
    assert told.code == 0, told.err
    assert "note: 3 messages on /ground_truth cannot be decoded and are skipped" in told.out
    assert "unreadable: the picture cannot be decoded 3" in told.out and "answered 3" in told.out


def test_truth_of_other_frames_is_no_truth(make_bag, frames, replay, tmp_path):
    late = [BagFrame(f.stamp_ns + 7, f.image, f.truth) for f in frames(2)]
    with BagWriter(tmp_path / "odd") as bag:
        for frame, other in zip(frames(2), late, strict=True):
            bag.write("/camera/image", frame.image_message, frame.stamp_ns)
            bag.write("/ground_truth", other.truth_message, frame.stamp_ns)
    told = replay(tmp_path / "odd")
    assert told.code == 1 and "no frame has ground truth: the first label is of stamp 0.250000007" in told.err


def test_an_empty_bag_is_named(tmp_path, replay):
    with BagWriter(tmp_path / "bag"):
        pass
    told = replay(tmp_path / "bag")
    assert told.code == 1 and "the bag has no topics" in told.err
    with BagWriter(tmp_path / "texts") as bag:
        bag.write("/chatter", String(data="hello"), 5)
    assert "it has /chatter (std_msgs/String)" in replay(tmp_path / "texts").err


def test_nothing_answered_is_a_failure(make_bag, replay, grounder):
    grounder.error = RuntimeError("boom")
    told = replay(make_bag())
    assert told.code == 1 and "no frame was answered" in told.err
    assert "failed: an error came instead of an answer 4" in told.out


def test_a_model_that_does_not_load_is_one_line(make_bag, tmp_path, capsys):
    def load(settings):
        raise ModelError("no such\nmodel")

    assert main([str(make_bag()), "--out", str(tmp_path / "out")], load=load) == 1
    assert capsys.readouterr().err.strip().splitlines()[-1] == "acs-replay: no such model"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name a bag"),
        (["BAG", "--compare", "a", "b"], "--compare takes no bag"),
        (["BAG", "--query", " ; "], "--query is empty"),
        (["BAG", "--query", "x" * 300], "at most 200"),
        (["BAG", "--query", "a", "--query-topic", "/q"], "exclude one another"),
        (["BAG", "--truth", "/t", "--coco", "x"], "exclude one another"),
        (["BAG", "--samples", "0"], "samples must be in [1, 256], got 0"),
        (["BAG", "--samples", "x"], "samples must be a int"),
        (["BAG", "--start-node"], "--start-node needs --live"),
        (["BAG", "--live", "--samples", "3"], "--samples cannot change a node that runs already"),
        (["BAG", "--live", "-p", "top_k:=3"], "-p cannot change a node that runs already"),
        (["BAG", "--node", "grounding"], "must be a full name"),
        (["BAG", "-p", "top_k"], "is not NAME:=VALUE"),
        (["BAG", "--rate", "0"], "must be in [0.001, 1000]"),
        (["BAG", "--frames", "0"], "must be at least 1"),
        (["BAG", "--json", "/nowhere/x.json"], "the folder /nowhere does not exist"),
    ],
)
def test_wrong_usage_ends_with_code_2(make_bag, replay, arguments, said):
    told = replay(*[make_bag() if a == "BAG" else a for a in arguments])
    assert told.code == 2 and said in told.err and "Traceback" not in told.err


def test_an_unknown_selector_is_found_before_the_bag_is_read(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path / "bag"), "--selector", "nope"])
    assert stopped.value.code == 2 and "nope" in capsys.readouterr().err


def test_help_needs_no_model():
    script = (
        "import sys; from acs_ros.replay.cli import main\ntry: main(['--help'])\nfinally: print('torch' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "examples:" in told.stdout and told.stdout.splitlines()[-1] == "False"


def test_ctrl_c_writes_what_there_is_and_the_next_run_goes_on(make_bag, tmp_path, until):
    script = f"""
        import sys, time
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from conftest import FakeGrounder
        from acs_ros.replay.cli import main
        grounder = FakeGrounder()
        ask = grounder.ground_many
        def slow(*args, should_stop, **options):
            if len(grounder.calls) == 2 and "wait" in sys.argv:
                print("waiting", flush=True)
                while not should_stop():
                    time.sleep(0.01)
                grounder.gate.clear()
            return ask(*args, should_stop=should_stop, **options)
        grounder.ground_many = slow
        sys.exit(main([{str(make_bag())!r}, "--out", {str(tmp_path / "out")!r}], load=lambda settings: grounder))
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    env = os.environ | {"PYTHONUNBUFFERED": "1"}
    log = tmp_path / "log"
    with log.open("wb") as out:
        running = subprocess.Popen([*command, "wait"], stdout=out, stderr=subprocess.STDOUT, env=env)
    try:
        until(lambda: "waiting" in log.read_text(), "the third frame")
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 130
    finally:
        running.kill()
        running.wait()
    said = log.read_text()
    assert "stopping; what there is will be written" in said and "Traceback" not in said
    assert "not reached: the run was stopped" in said
    assert len(load(tmp_path / "out" / "evaluation.json").groups[0].questions) == 2
    again = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    assert "2 answers are here already" in again.stdout
    assert len(load(tmp_path / "out" / "evaluation.json").groups[0].questions) == 4


def test_two_runs_are_compared(make_bag, replay, grounder, tmp_path):
    bag = make_bag()
    replay(bag, out="a")
    grounder.reason = "not there"
    replay(bag, "--seed", "2", out="b")
    told = replay("--compare", tmp_path / "b", tmp_path / "a" / "evaluation.json", "--json", tmp_path / "c.json")
    assert told.code == 0 and "4 questions in both" in told.out and "B won 4 questions and lost 0" in told.out
    assert json.loads((tmp_path / "c.json").read_text())["tables"][0]["name"] == "comparison"
    told = replay("--compare", tmp_path / "a", tmp_path / "nowhere.json")
    assert told.code == 1 and "nowhere.json" in told.err


def test_a_run_that_finds_no_room_goes_on_from_what_it_has(make_bag, replay, grounder, monkeypatch):
    bag = make_bag()
    with monkeypatch.context() as full:

        def no_room(*ignored, **also):
            raise OSError(errno.ENOSPC, "No space left on device")

        full.setattr("acs_ros.replay.output.Output._frame", no_room)
        told = replay(bag)
    assert told.code == 1
    assert str(told.folder) in told.err
    assert "Free some space" in told.err and "goes on from the answers that it has" in told.err
    asked = len(grounder.calls)
    again = replay(bag)
    assert again.code == 0
    assert len(grounder.calls) == asked == 4
