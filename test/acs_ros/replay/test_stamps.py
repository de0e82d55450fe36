"""Bags with stamps and times as robots record them: 0, repeated, falling; truth recorded twice or not at all."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from std_msgs.msg import String

from acs_core.evaluation.storage import load
from acs_core.geometry import Box
from acs_ros.bags.bags import BagFrame, BagWriter

START = 1_700_000_000 * 10**9
PERIOD = 250_000_000
RIGHT, WRONG = Box(1, 2, 4, 5), Box(20, 20, 30, 30)  # the fake grounder answers the first one


@pytest.fixture
def record(tmp_path):
    """Writes a bag of 8 frames, every other of which the fake grounder answers right; the phrase is the frame's own
    with ``named``. ``stamp`` and ``time`` are functions of the frame's number; ``kinds`` the messages of a frame."""

    def make(stamp, time=lambda n: START + n * PERIOD, kinds="TI", storage="mcap", named=False, queries=(), lost=()):
        with BagWriter(tmp_path / "bag", storage) as bag:
            for n in range(8):
                for at, text in queries:
                    if at == n:
                        bag.write("/grounding/query", String(data=text), time(n))
                box = RIGHT if n % 2 == 0 else WRONG
                image = np.full((30, 40, 3), 10 * n, np.uint8)
                frame = BagFrame(stamp(n), image, ((f"thing {n}" if named else "key", box),))
                for kind in kinds:
                    other = replace(frame, truth=(("key", Box(0, 0, 9, 9)),))
                    if kind in "TO" and n not in lost:
                        message = (other if kind == "O" else frame).truth_message
                        bag.write("/ground_truth", message, time(n))
                    elif kind == "I":
                        bag.write("/camera/image", frame.image_message, time(n))
        return tmp_path / "bag"

    return make


def scores(told) -> tuple[float, float, int]:
    """Accuracy and recall in percent, and the number of labelled questions."""
    tables = json.loads((told.folder / "all.json").read_text())["tables"]
    (row,) = (table["rows"][0] for table in tables if table["name"] == "scores")
    return row["Acc@0.5 %"]["value"], row["recall %"]["value"], row["count"]


@pytest.fixture
def evaluate(replay, tmp_path):
    (tmp_path / "out").mkdir()

    def run(bag, *arguments):
        return replay(bag, "--json", tmp_path / "out" / "all.json", *arguments)

    return run


STAMPS = {
    "0": lambda n: 0,
    "repeated": lambda n: START - PERIOD + n // 2,
    "one for all": lambda n: 77,
    "falling": lambda n: START - n * PERIOD,
}


@pytest.mark.parametrize("stamps", STAMPS)
@pytest.mark.parametrize("kinds", ["TI", "IT", "TTI"])
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_each_frame_gets_its_own_truth_whatever_the_stamps_are(record, evaluate, grounder, stamps, kinds, storage):
    told = evaluate(record(STAMPS[stamps], kinds=kinds, storage=storage, named=True))
    assert told.code == 0, told.err
    assert scores(told) == (50.0, 50.0, 8)
    asked = [(round(float(image.mean())) // 10, phrase) for image, phrase, _ in grounder.calls]
    assert asked == [(n, f"thing {n}") for n in range(8)]
    said = "the stamps fall at 7 of 8 frames" if stamps == "falling" else "8 of 8 frames have the stamp "
    assert f"note: {said}" in told.out
    assert any(said in text for name, text in load(told.folder / "evaluation.json").facts.items() if "note" in name)


def test_truth_of_lost_messages_is_not_that_of_other_frames(record, evaluate):
    told = evaluate(record(STAMPS["0"], lost=(0, 4)))
    assert told.code == 0, told.err
    assert scores(told) == (pytest.approx(100 / 3), pytest.approx(100 / 3), 6)
    assert "note: 2 of 8 frames have no ground truth" in told.out


def test_truth_that_was_recorded_twice_counts_once(record, evaluate):
    told = evaluate(record(lambda n: START + n, kinds="TTI"))
    assert scores(told) == (50.0, 50.0, 8)
    assert "note: 8 ground truth messages repeat that of their frame and count once" in told.out


@pytest.mark.parametrize("more", [(), ("--query", "key")])
def test_where_nothing_can_be_labelled_the_run_says_so_first(record, evaluate, grounder, more):
    told = evaluate(record(lambda n: START + n, kinds="TOI"), *more)
    assert told.code == 1 and not grounder.calls and told.out == ""
    said = "acs-replay: no frame has ground truth, although 16 messages on /ground_truth should hold it: "
    assert told.err.strip().startswith(said) and "\n" not in told.err.strip()
    assert "8 of 8 frames have several ground truth messages that differ" in told.err


def test_without_the_truth_that_fits_no_frame_the_run_goes_on(record, evaluate, grounder):
    told = evaluate(record(lambda n: START + n, kinds="TOI"), "--truth", "", "--query", "key")
    assert told.code == 0 and len(grounder.calls) == 8 and "Accuracy is unknown" in told.out


def test_first_frames_without_truth_are_told(record, evaluate):
    told = evaluate(record(lambda n: START + n, lost=(0, 1)), "--frames", "2", "--query", "key")
    assert told.code == 0 and "note: none of the first 2 frames has ground truth" in told.out


@pytest.mark.parametrize("time", [lambda n: 0, lambda n: 5])
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_without_times_of_recording_queries_go_by_the_order_of_the_bag(record, evaluate, grounder, time, storage):
    queries = ((0, "key"), (3, "cup"), (6, ""))
    told = evaluate(record(lambda n: START + n * PERIOD, time=time, queries=queries, storage=storage))
    assert told.code == 0, told.err
    assert [phrase for _, phrase, _ in grounder.calls] == ["key"] * 3 + ["cup"] * 3
    assert "note: the times of recording are missing or fall at 8 of 8 frames" in told.out
    assert "over 1.8 s" in told.out  # by the stamps: seven times 0.25 s


@pytest.mark.parametrize("time", [lambda n: START - n, lambda n: -START + n, lambda n: 2**63 - 9 + n, lambda n: n % 2])
def test_no_times_of_recording_stop_a_run(record, evaluate, time):
    told = evaluate(record(lambda n: START + n * PERIOD, time=time, storage="sqlite3"))
    assert told.code == 0, told.err
    assert scores(told) == (50.0, 50.0, 8)


def test_extracted_frames_of_repeated_stamps_come_back_as_truth(record, evaluate, replay, tmp_path):
    bag = record(STAMPS["0"], kinds="I")
    assert replay(bag, "--extract", tmp_path / "labels").code == 0
    file = tmp_path / "labels" / "instances.json"
    content = json.loads(file.read_text())
    content["categories"] = [{"id": 1, "name": "key"}]
    boxes = [[1, 2, 3, 3] if i % 2 == 0 else [20, 20, 9, 9] for i in range(8)]
    content["annotations"] = [
        {"image_id": image["id"], "category_id": 1, "bbox": box}
        for image, box in zip(content["images"], boxes, strict=True)
    ]
    file.write_text(json.dumps(content))
    told = evaluate(bag, "--coco", file)
    assert told.code == 0, told.err
    assert scores(told) == (50.0, 50.0, 8)


@pytest.mark.parametrize("stamps", ["0", "repeated"])
def test_live_every_frame_is_sent_and_its_answer_is_its_own(record, evaluate, rig, grounder, monkeypatch, stamps):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(rig.domain))
    told = evaluate(record(STAMPS[stamps], named=True), "--live", "--lockstep", "--quiet", "60")
    assert told.code == 0, told.err
    assert "no phrase was in force" not in told.out and "answered 8 of 8 frames" in told.out
    assert "note: frames that repeat a stamp are sent with one of their own" in told.out
    assert scores(told) == (50.0, 50.0, 8)
    assert [phrase for _, phrase, _ in grounder.calls] == [f"thing {n}" for n in range(8)]
    sent = {stamp.header.stamp.sec * 10**9 + stamp.header.stamp.nanosec for stamp in rig.detections}
    assert sent == {START + n * PERIOD for n in range(8)}
