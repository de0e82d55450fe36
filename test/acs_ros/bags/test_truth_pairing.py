"""Ground truth and frames whose stamps do not tell which belong together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acs_core.geometry import Box
from acs_ros.bags.frames import FrameAt
from acs_ros.bags.truth_pairing import TruthAt, pair_truth

PERIOD = 1000


def labels(number):
    return (("key", Box(number, 0, number + 1, 1)),)


def record(*messages, stamp=lambda number: 0, truth_stamp=None, name="camera", truth_name="camera"):
    """Frames and truths of messages in the order of the bag: ("I" or "T", number, time)."""
    frames, truths = [], []
    for kind, number, time in messages:
        if kind == "I":
            frames.append(FrameAt(len(frames), time, stamp(number), name))
        else:
            at = (truth_stamp or stamp)(number)
            truths.append(TruthAt(len(frames), time, at, truth_name, labels(number)))
    return frames, truths


def found(frames, truths):
    """The number of the label that each frame got, and the notes."""
    pairing = pair_truth(frames, truths)
    got = [pairing.truth.get(frame.key) for frame in pairing.frames]
    return [None if one is None else int(one[0][1].x1) for one in got], pairing.notes


def rounds(order, count, gap, only=lambda kind, number: True, start=10**9):
    """``count`` times the messages of ``order``, ``gap`` apart."""
    every = [(kind, n, start + n * PERIOD + gap * i) for n in range(count) for i, kind in enumerate(order)]
    return [one for one in every if only(*one[:2])]


@pytest.mark.parametrize("order", ["TI", "IT"])
@pytest.mark.parametrize("gap", [0, 1, 100, 490])
@pytest.mark.parametrize("stamp", [lambda n: 0, lambda n: 7, lambda n: n // 2, lambda n: 9 - n])
def test_messages_that_were_recorded_in_turn_belong_together(order, gap, stamp):
    assert found(*record(*rounds(order, 6, gap), stamp=stamp)) == ([0, 1, 2, 3, 4, 5], ())


@given(st.integers(1, 8), st.permutations(range(8)), st.sets(st.integers(0, 7)), st.booleans())
def test_with_stamps_of_their_own_the_order_of_recording_does_not_matter(count, order, lost, truth_last):
    frames = [("I", n, 10**9 + n) for n in order if n < count]
    truths = [("T", n, 10**9 + n) for n in range(count) if n not in lost]
    messages = [*frames, *truths] if truth_last else [*truths, *frames]
    got, _ = found(*record(*messages, stamp=lambda n: n + 1))
    assert got == [None if n in lost else n for n in order if n < count]


@pytest.mark.parametrize("order", ["TI", "IT"])
def test_lost_messages_leave_the_others_with_their_frames(order):
    """By order alone all would be one off."""
    got, _ = found(*record(*rounds(order, 6, 50, lambda kind, n: (kind, n) not in (("T", 0), ("T", 3), ("I", 5)))))
    assert got == [None, 1, 2, None, 4]


def test_what_order_and_times_contradict_stays_without_truth():
    """As many of both in turn, but each message is nearer to the frame that is not its own by order."""
    got, notes = found(*record(*rounds("IT", 4, 600)))
    assert got == [None, None, None, None]
    assert len(notes) == 1 and notes[0].startswith(
        "4 ground truth messages are left out, and 4 of 4 frames without ground truth (frames 0, 1, 2, 3; several"
    )


def test_without_times_only_strict_turns_count():
    def at(*kinds):
        return record(*((kind, number, 0) for kind, number in kinds))

    assert found(*at(("T", 0), ("I", 0), ("T", 1), ("I", 1)))[0] == [0, 1]
    assert found(*at(("I", 0), ("T", 0), ("I", 1), ("T", 1)))[0] == [0, 1]
    assert found(*at(("T", 0), ("T", 0), ("I", 0), ("T", 1), ("T", 1), ("I", 1)))[0] == [0, 1]
    got, notes = found(*at(("T", 0), ("T", 1), ("I", 0), ("I", 1)))
    assert got == [None, None] and "2 ground truth messages are left out" in notes[0]
    got, notes = found(*at(("T", 0), ("I", 0), ("I", 1)))
    assert got == [None, None] and "frames 0, 1" in notes[0]


def test_truth_that_was_recorded_twice_counts_once():
    twice = record(*rounds("TTI", 3, 1), stamp=lambda n: n + 1)
    assert found(*twice) == ([0, 1, 2], ("3 ground truth messages repeat that of their frame and count once",))
    assert found(*record(*rounds("TTI", 3, 1)))[0] == [0, 1, 2]
    assert found(*record(*rounds("TTII", 3, 1), stamp=lambda n: n + 1))[0] == [0, 0, 1, 1, 2, 2]


def test_the_order_of_the_labels_in_a_message_does_not_matter():
    frame = FrameAt(0, 5, 5, "camera")
    both = labels(1) + labels(2)
    pairing = pair_truth([frame], [TruthAt(0, 5, 5, "camera", both), TruthAt(1, 6, 5, "camera", both[::-1])])
    assert pairing.truth == {frame.key: both}


def test_truth_that_differs_for_one_frame_is_none():
    messages = [("T", 0, 1), ("I", 0, 2), ("T", 1, 1000), ("T", 9, 1001), ("I", 1, 1002)]
    got, notes = found(*record(*messages, stamp=lambda n: {0: 1, 1: 2, 9: 2}[n]))
    assert got == [0, None]
    assert notes == ("1 of 2 frames have several ground truth messages that differ, and are left without (frames 1)",)


def test_a_side_without_stamps_goes_by_the_times():
    for sides in ({"stamp": lambda n: 0, "truth_stamp": lambda n: n + 5}, {"truth_stamp": lambda n: 0}):
        given_ = {"stamp": lambda n: n + 5} | sides
        assert found(*record(*rounds("TI", 4, 10), **given_)) == ([0, 1, 2, 3], ())


def test_other_stamps_and_other_cameras_are_kept_apart():
    frames, truths = record(*rounds("TI", 3, 10), stamp=lambda n: n + 1, truth_stamp=lambda n: n + 70)
    pairing = pair_truth(frames, truths)
    assert set(pairing.truth) == {(70, "camera"), (71, "camera"), (72, "camera")}
    assert found(*record(*rounds("TI", 3, 10), truth_name="left"))[0] == [None, None, None]


times = st.one_of(st.integers(0, 10), st.integers(-(2**63), 2**63 - 1))


@given(st.lists(st.tuples(st.sampled_from("IT"), st.integers(0, 3), times), max_size=25), st.booleans())
def test_whatever_a_bag_holds_no_frame_gets_the_truth_of_another_time(messages, stamped):
    stamp = (lambda n: n + 1) if stamped else (lambda n: n // 2)
    frames, truths = record(*messages, stamp=stamp)
    pairing = pair_truth(frames, truths)
    for frame in pairing.frames:
        for _, box in pairing.truth.get(frame.key, ()):
            assert stamp(int(box.x1)) == frame.stamp_ns or 0 in (stamp(int(box.x1)), frame.stamp_ns)
