from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image

from acs_ros.bags.frames import (
    PERIOD_NS,
    FrameAt,
    due_times,
    odd_times,
    peek_header,
    times_serve,
    with_own_stamps,
    with_stamp,
)
from acs_ros.conversions.images import NS, header_of

START = 1_700_000_000 * NS


def frames(stamps, times=None, name="camera"):
    times = [START + i * 250_000_000 for i in range(len(stamps))] if times is None else times
    return [FrameAt(i, at, stamp, name) for i, (stamp, at) in enumerate(zip(stamps, times, strict=True))]


@given(st.integers(0, 2**31 * NS - 1), st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=9))
def test_a_stamp_is_replaced_and_nothing_else(ns, name):
    before = bytes(serialize_message(Image(header=header_of(7, name), height=1, width=2, step=6, data=bytes(6))))
    after = with_stamp(before, ns)
    assert peek_header(after) == (ns, name) and after[:4] + after[12:] == before[:4] + before[12:]
    big_endian = b"\0\0" + before[2:4] + before[4:12][::-1] + before[12:]
    assert with_stamp(big_endian, ns)[4:12] == (ns // NS).to_bytes(4, "big") + (ns % NS).to_bytes(4, "big")


@given(
    st.lists(st.tuples(st.integers(0, 3), st.one_of(st.integers(-5, 20), st.integers(0, 2**63 - 1))), max_size=30),
    st.sets(st.integers(0, 20), max_size=5),
)
def test_every_frame_has_a_key_of_its_own(pairs, taken):
    given_ = frames([stamp for stamp, _ in pairs], [at for _, at in pairs])
    made = with_own_stamps(given_, {(at, "camera") for at in taken})
    assert len({frame.key for frame in made}) == len(made)
    own = [frame.own_stamp_ns for frame in made if frame.own_stamp_ns is not None]
    assert own == sorted(own) and not {*own} & {*taken} and all(0 < at < 2**31 * NS for at in own)
    assert [f.own_stamp_ns is None for f in made] == [sum(g.key == f.key for g in given_) == 1 for f in given_]


def test_frames_of_several_cameras_keep_their_stamps():
    both = [*frames([5]), *frames([5], name="left")]
    assert with_own_stamps(both) == tuple(both)
    assert [f.own_stamp_ns for f in with_own_stamps(frames([0, 0, 9]))] == [START, START + 250_000_000, None]


RISING, ZERO = [NS, 2 * NS, 4 * NS], [0, 0, 0]


@pytest.mark.parametrize(
    ("stamps", "times", "stamps_first", "expected"),
    [
        (RISING, None, False, [0, 250_000_000, 500_000_000]),
        (RISING, None, True, [0, NS, 3 * NS]),
        (ZERO, None, True, [0, 250_000_000, 500_000_000]),
        (RISING[::-1], None, True, [0, 250_000_000, 500_000_000]),
        (RISING, ZERO, False, [0, NS, 3 * NS]),
        (ZERO, ZERO, False, [0, PERIOD_NS, 2 * PERIOD_NS]),
        (RISING, [START, START + 5, START + 3], False, [0, 5, 5 + 2 * NS]),  # one falls
        (RISING, [START, START + NS, START + 9000 * NS], False, [0, NS, 3 * NS]),  # the clock was set
        ([NS, 2 * NS, 9000 * NS], [START, START + 2, START + 9000 * NS], False, [0, 2, 2 + 8998 * NS]),  # a real pause
        ([5, 5, 5], [0, START, START + NS], False, [0, NS, 2 * NS]),
        ([5], None, False, [0]),
        ([], None, False, []),
    ],
)
def test_frames_are_due_at_the_pace_that_is_known(stamps, times, stamps_first, expected):
    assert list(due_times(frames(stamps, times), stamps_first)) == expected


@pytest.mark.parametrize(
    ("times", "serve"), [([1, 2, 2, 3], True), ([1, 3, 2, 4], False), ([0, 1, 2, 3], False), ([5, 5, 5, 5], False)]
)
def test_times_of_recording_serve_where_they_rise(times, serve):
    assert times_serve(frames([1, 2, 3, 4], times)) is serve


@pytest.mark.parametrize(
    ("stamps", "times", "said"),
    [
        ([1, 2, 3], None, []),
        ([0], None, []),
        ([0, 0, 0], None, ["3 of 3 frames have the stamp 0: they are told apart by the order and the times"]),
        (
            [0, 0, 7, 7, 8],
            None,
            ["4 of 5 frames have the stamp of another frame (2 of them 0): "],
        ),
        ([1, 5, 3], None, ["the stamps fall at 1 of 3 frames (frame 2)"]),
        ([1, 2, 3], [0, 0, 0], ["the times of recording are missing or fall at 3 of 3 frames"]),
        ([1, 2, 3], [4, 4, 4], ["the times of recording are missing or fall at 3 of 3 frames"]),
        ([1, 2, 3], [4, 6, 5], ["the times of recording are missing or fall at 1 of 3 frames (frame 2)"]),
    ],
)
def test_odd_stamps_and_times_are_counted_and_named(stamps, times, said):
    found = odd_times(with_own_stamps(frames(stamps, times)))
    assert len(found) == len(said)
    for text, wanted in zip(found, said, strict=True):
        assert text.startswith(wanted)
