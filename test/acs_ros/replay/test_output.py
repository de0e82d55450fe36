from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image
from rosbags.highlevel import AnyReader

from acs_core.geometry import Box
from acs_core.output_folder import OutputFolder
from acs_ros.bags.bags import BagFrame
from acs_ros.bags.reader import Bag
from acs_ros.replay.contact_sheet import ContactSheet
from acs_ros.replay.contents import choose_topics, read_contents
from acs_ros.replay.frame_table import frame_rows
from acs_ros.replay.journal import Kept
from acs_ros.replay.output import Output, steps
from acs_ros.replay.replies import Fate, FrameReplies, Replies
from acs_ros.replay.schedule import GroundTruth
from acs_ros.replay.session import MADE


@pytest.fixture
def write(make_bag, tmp_path, result):
    """Writes the output of a bag of four frames, of which the last has no answer, as a run does."""

    def run(storage="mcap", pictures=10, with_bag=True, truth=True):
        options = storage, "/robot/grounding", pictures, 10**6
        source = tmp_path / "bag"
        with Bag(source if source.exists() else make_bag(storage=storage)) as bag:
            topics = choose_topics(bag.topics)
            contents = read_contents(bag, topics)
            kept = tuple(Kept(result(phrase, (40, 30)), 20.0) for phrase in ("key", "cup"))
            told = [FrameReplies(f, Fate.ANSWERED, ("key", "cup"), kept, 20.0) for f in contents.frames[:3]]
            replies = Replies((*told, FrameReplies(contents.frames[3], Fate.DROPPED, ("key", "cup"))))
            known = GroundTruth(contents.truth if truth else {})
            with OutputFolder(tmp_path / "out", "acs-replay", replaces=MADE) as out, out.stage(*MADE) as staged:
                Output(staged, *options).write(bag, topics, replies, known, with_bag)
        return Output(tmp_path / "out", *options), contents

    return run


@pytest.mark.parametrize(("storage", "suffix"), [("mcap", ".mcap"), ("sqlite3", ".db3")])
def test_the_bag_opens_with_the_definitions_in_it(write, storage, suffix):
    output, contents = write(storage)
    messages = []
    # By its file alone, as Foxglove does: no metadata.yaml, no installed message packages.
    with AnyReader([output.bag / f"bag{suffix}"]) as bag:
        assert all(c.msgdef.data for c in bag.connections)
        for connection, time_ns, raw in bag.messages():
            messages.append((connection.topic, time_ns, bag.deserialize(raw, connection.msgtype)))
    assert Counter(topic for topic, _, _ in messages) == {
        "/ground_truth": 3,
        "/robot/grounding/candidates": 6,
        "/robot/grounding/detections": 3,
        "/robot/grounding/debug_image/compressed": 3,
    }
    stamps = {f.stamp_ns for f in contents.frames[:3]}
    assert {m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for _, _, m in messages} == stamps
    detections = [(at, m) for topic, at, m in messages if topic.endswith("detections")]
    assert [len(m.detections) for _, m in detections] == [2, 2, 2]
    assert detections[0][0] == contents.frames[0].time_ns + 20_000_000
    assert [d.results[0].hypothesis.class_id for d in detections[0][1].detections] == ["key", "cup"]
    truth = next(m for topic, _, m in messages if topic == "/ground_truth")
    assert truth.detections[0].results[0].hypothesis.class_id == "key"


def test_frames_are_kept_for_the_report_as_far_as_wanted(write):
    output, contents = write(pictures=2)
    files = sorted(output.frames.iterdir())
    assert [f.name for f in files] == ["000000_0.250000000.jpg", "000001_0.500000000.jpg"]
    assert output.picture_of(contents.frames[1]) == "frames/000001_0.500000000.jpg"
    with Image.open(files[1]) as picture:
        assert picture.size == (40, 30) and abs(picture.convert("L").getpixel((20, 15)) - 10) <= 2


def test_a_second_run_replaces_the_first(write):
    write()
    output, _ = write(truth=False)
    with AnyReader([output.bag]) as bag:
        assert "/ground_truth" not in bag.topics and bag.message_count == 12


def test_without_a_bag_there_are_only_frames(write):
    output, _ = write(with_bag=False)
    assert not output.bag.exists() and len(list(output.frames.iterdir())) == 3


def test_the_bag_has_every_frame_once_with_all_its_labels(make_bag, result, tmp_path):
    labels = (("key", Box(1, 1, 9, 9)), ("mug", Box(20, 20, 40, 30)))
    pictures = [np.full((30, 40, 3), value, np.uint8) for value in (10, 20)]
    shown = [BagFrame(1, pictures[0], labels), BagFrame(2, pictures[1], labels[:1])]
    with Bag(make_bag(frames=shown)) as bag:
        topics = choose_topics(bag.topics)
        contents = read_contents(bag, topics)
        asked = [("key", "mug"), ("key",)]
        told = [
            FrameReplies(f, Fate.ANSWERED, phrases, tuple(Kept(result(p, (40, 30)), 5.0) for p in phrases), 5.0)
            for f, phrases in zip(contents.frames, asked, strict=True)
        ]
        output = Output(tmp_path / "out", "mcap", "/grounding", 10, 10**6)
        output.write(bag, topics, Replies(tuple(told)), GroundTruth(contents.truth))
    with AnyReader([output.bag]) as made:
        found = [(c.topic, made.deserialize(raw, c.msgtype)) for c, _, raw in made.messages()]
    assert Counter(topic for topic, _ in found) == {
        "/ground_truth": 2,
        "/grounding/candidates": 3,
        "/grounding/detections": 2,
        "/grounding/debug_image/compressed": 2,
    }
    truths = [m for topic, m in found if topic == "/ground_truth"]
    assert [m.header.stamp.nanosec for m in truths] == [1, 2]
    assert [tuple(d.results[0].hypothesis.class_id for d in m.detections) for m in truths] == asked


def test_the_tiles_of_the_contact_sheet_are_drawn_of_unanswered_frames_too(make_bag, result, tmp_path):
    with Bag(make_bag()) as bag:
        topics = choose_topics(bag.topics)
        contents = read_contents(bag, topics)
        truth = GroundTruth(contents.truth)
        first = FrameReplies(contents.frames[0], Fate.ANSWERED, ("key",), (Kept(result("key", (40, 30)), 5.0),), 5.0)
        rest = [FrameReplies(f, Fate.DROPPED, ("key",)) for f in contents.frames[1:]]
        replies = Replies((first, *rest))
        sheet = ContactSheet(frame_rows(replies, truth), "bag")
        Output(tmp_path / "out", "mcap", "/grounding", 10, 10**6).write(bag, topics, replies, truth, sheet=sheet)
    assert sheet.drawn == 4


def test_a_progress_bar_writes_nothing_into_a_pipe(capsys):
    with steps("drawing", 2) as advance:
        advance()
    assert capsys.readouterr() == ("", "")
