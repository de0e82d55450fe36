from __future__ import annotations

import pytest

from acs_core.errors import PhraseError
from acs_core.geometry import Box
from acs_ros.errors import BagError
from acs_ros.replay.contents import Contents
from acs_ros.replay.schedule import GroundTruth, make_schedule, unmatched

KEY, CUP = ("key", Box(0, 0, 2, 2)), ("cup", Box(3, 3, 5, 5))


@pytest.fixture
def contents(at):
    def make(*queries, count=3):
        frames = tuple(at(i) for i in range(count))
        return Contents(frames, tuple(queries), {}, {})

    return make


def phrases(plan):
    return [asked.phrases for asked in plan.asked]


def test_a_given_query_is_asked_of_every_frame(contents):
    plan = make_schedule(contents((1, "cup")), GroundTruth({}), "key;  red   mug; key", None)
    assert phrases(plan) == [("key", "red mug")] * 3 and plan.source == "--query"


# Frames are at 0.25, 0.5 and 0.75 s.
@pytest.mark.parametrize(
    ("queries", "expected", "notes"),
    [
        ([(1, "key")], [("key",)] * 3, []),
        ([(250_000_000, "key"), (500_000_001, "cup; mug")], [("key",), ("key",), ("cup", "mug")], []),
        ([(300_000_000, "key")], [(), ("key",), ("key",)], ["nothing was asked of 1 frames"]),
        ([(1, "key"), (400_000_000, "")], [("key",), (), ()], ["nothing was asked of 2 frames"]),
        ([(1, "key"), (400_000_000, "x" * 300)], [("key",)] * 3, ["1 queries on /q cannot be asked"]),
        ([(1, "key"), (2, "cup")], [("cup",)] * 3, []),
    ],
)
def test_what_was_in_force_when_a_frame_was_recorded_is_asked(contents, queries, expected, notes):
    plan = make_schedule(contents(*queries), GroundTruth({}), None, "/q")
    assert phrases(plan) == expected
    assert len(plan.notes) == len(notes) and all(told in note for told, note in zip(notes, plan.notes, strict=True))
    assert plan.recorded


def test_without_a_query_each_frame_is_asked_for_its_labels(contents, at):
    truth = GroundTruth({at(0).key: (KEY, CUP, KEY), at(2).key: (CUP,)})
    plan = make_schedule(contents(), truth, None, None)
    assert phrases(plan) == [("key", "cup"), (), ("cup",)]
    assert not plan.recorded


def test_nothing_to_ask_says_what_to_do(contents):
    with pytest.raises(BagError, match="--query 'key'"):
        make_schedule(contents(), GroundTruth({}), None, None)
    with pytest.raises(PhraseError):
        make_schedule(contents(), GroundTruth({}), "x" * 300, None)


def test_truth_tells_absent_from_unknown(at):
    truth = GroundTruth({at(0).key: (KEY, KEY), at(1).key: (CUP,), at(2).key: ()})
    assert truth.boxes(at(0), "key") == (KEY[1], KEY[1])
    assert truth.boxes(at(1), "key") == truth.boxes(at(2), "key") == ()
    assert truth.boxes(at(3), "key") is None  # no labels
    assert truth.boxes(at(0), "dog") is None  # labels never speak of dogs
    assert truth.knows(at(2)) and not truth.knows(at(3)) and len(truth) == 3
    assert truth.without([at(0).key]).boxes(at(0), "key") is None


def test_a_frame_of_another_camera_has_no_labels(at):
    truth = GroundTruth({at(0, frame_id="left").key: (KEY,)})
    assert truth.boxes(at(0, frame_id="right"), "key") is None


def test_what_does_not_belong_together_is_told(at):
    frames = [at(i) for i in range(3)]
    assert unmatched({}, frames) == ""
    assert unmatched({f.key: (KEY,) for f in frames}, frames) == ""
    lost = {frames[0].key: (KEY,), (77, "camera"): (KEY,)}
    assert unmatched(lost, frames) == (
        "2 of 3 frames have no ground truth; 1 ground truth messages match no frame by stamp and frame_id"
    )
    with pytest.raises(BagError, match=r"of stamp 0.000000077 in 'camera', the first frame of 0.250000000 in 'camera'"):
        unmatched({(77, "camera"): (KEY,)}, frames)
    with pytest.raises(BagError, match="stamp and frame_id of a label must be its image's own"):
        unmatched({(frames[0].stamp_ns, "base_link"): (KEY,)}, frames)
