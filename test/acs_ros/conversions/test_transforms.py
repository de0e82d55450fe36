"""Rigid transforms, and the buffer that stands for tf2's."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transform_parts import stamped

from acs_ros.conversions.transforms import (
    KEPT_S,
    MAX_FRAMES,
    NS,
    RigidTransform,
    TransformBuffer,
    TransformError,
    find_transform,
)

numbers = st.floats(-10, 10)
transforms = st.builds(
    lambda t, q: RigidTransform(t, tuple(float(v) for v in np.array(q) / np.linalg.norm(q))),
    st.tuples(numbers, numbers, numbers),
    st.tuples(numbers, numbers, numbers, numbers).filter(lambda q: np.linalg.norm(q) > 0.1),
)
HALF = 0.5**0.5
QUARTER_TURN = (0.0, 0.0, HALF, HALF)  # about z: x to y


@given(transforms, transforms, st.tuples(numbers, numbers, numbers))
def test_transforms_compose_and_invert(one, other, point):
    assert one.after(other).apply(point) == pytest.approx(one.apply(other.apply(point)), abs=1e-9)
    assert one.inverse().apply(one.apply(point)) == pytest.approx(point, abs=1e-9)


def test_a_quarter_turn_about_z_takes_x_to_y():
    pose = RigidTransform((1.0, 2.0, 3.0), QUARTER_TURN).pose((1.0, 0.0, 0.0))
    assert (pose.position.x, pose.position.y, pose.position.z) == pytest.approx((1.0, 3.0, 3.0))
    q = pose.orientation
    assert (q.x, q.y, q.z, q.w) == pytest.approx(QUARTER_TURN)


def arm() -> TransformBuffer:
    """map -> base (moves 1 m/s along x and turns), base -> camera (static), map -> door (static)."""
    buffer = TransformBuffer()
    for second in (10, 11, 12):
        angle = np.pi / 2 * (second - 10) / 2  # a quarter turn in two seconds
        turn = (0.0, 0.0, float(np.sin(angle / 2)), float(np.cos(angle / 2)))
        buffer.set_transform(stamped("map", "base", second, (second - 10.0, 0.0, 0.0), turn))
    buffer.set_transform_static(stamped("base", "/camera", 0, (0.0, 0.0, 1.0)))
    buffer.set_transform_static(stamped("map", "door", 0, (5.0, 0.0, 0.0)))
    return buffer


@pytest.mark.parametrize(
    ("target", "source", "seconds", "point"),
    [
        ("map", "camera", 10, (1.0, 0.0, 1.0)),
        ("map", "camera", 12, (2.0, 1.0, 1.0)),
        ("map", "camera", 11, (1 + HALF, HALF, 1.0)),
        # Half of the way: a sixteenth of a turn
        ("map", "camera", 10.5, (0.5 + np.cos(np.pi / 8), np.sin(np.pi / 8), 1.0)),
        ("map", "camera", 0, (2.0, 1.0, 1.0)),  # no stamp: the newest
        ("base", "camera", 99, (1.0, 0.0, 1.0)),  # static
        ("camera", "base", 99, (1.0, 0.0, -1.0)),
        ("door", "camera", 10, (-4.0, 0.0, 1.0)),
        ("camera", "door", 12, (0.0, -4.0, -1.0)),
        ("camera", "camera", 99, (1.0, 0.0, 0.0)),
        ("/map", "/camera", 10, (1.0, 0.0, 1.0)),
    ],
)
def test_a_point_is_found_in_the_other_frame(target, source, seconds, point):
    found = find_transform(arm(), target, source, round(seconds * NS), 0.0)
    assert found.apply((1.0, 0.0, 0.0)) == pytest.approx(point)


@pytest.mark.parametrize(
    ("target", "source", "seconds", "tolerance", "said"),
    [
        ("map", "", 10, 0, "no transform to 'map': the image has no frame_id; set it in the camera driver"),
        ("map", "lidar", 10, 0, "no transform from 'lidar' to 'map': nothing on /tf or /tf_static names the frame 'l"),
        ("odom", "camera", 10, 0, "names the frame 'odom'"),
        ("world", "camera", 10, 0, "the two frames are not connected; their roots are 'map' and 'world'"),
        (
            "map",
            "camera",
            12.5,
            0.4,
            "the newest transform from 'camera' to 'map' is stamped 0.50 s before the image: raise "
            "transform_tolerance, or see what publishes it, and with which clock",
        ),
        (
            "map",
            "camera",
            9,
            10,
            "no transform from 'camera' to 'map' is as old as the image, which is stamped 3.00 s before the newest "
            "one: the image came late, or has another clock",
        ),
    ],
)
def test_without_a_transform_the_reason_is_named(target, source, seconds, tolerance, said):
    buffer = arm()
    buffer.set_transform_static(stamped("world", "moon"))
    with pytest.raises(TransformError) as error:
        find_transform(buffer, target, source, round(seconds * NS), tolerance)
    assert said in str(error.value)


def test_within_the_tolerance_the_newest_transform_is_taken():
    assert find_transform(arm(), "map", "camera", round(12.5 * NS), 0.5).apply((1, 0, 0)) == pytest.approx((2, 1, 1))


def test_transforms_that_do_not_overlap_in_time_are_named():
    buffer = TransformBuffer()
    buffer.set_transform(stamped("map", "base", 10))
    buffer.set_transform(stamped("base", "camera", 10.04))
    for second in (10.05, 10.02, 12, 0):
        with pytest.raises(TransformError, match=r"between 'camera' and 'map' do not overlap in time: one .* clocks$"):
            find_transform(buffer, "map", "camera", round(second * NS), 0.1)


def test_a_transform_that_comes_during_the_search_is_found():
    class Late(TransformBuffer):
        def newest(self, target, source):
            self.set_transform(stamped("map", "base", 13, (3.0, 0.0, 0.0)))
            return super().newest(target, source)

    buffer = Late()
    buffer.set_transform(stamped("map", "base", 11, (1.0, 0.0, 0.0)))
    assert find_transform(buffer, "map", "base", 12 * NS, 0.0).translation == (2.0, 0.0, 0.0)


def test_the_order_in_which_transforms_come_does_not_matter():
    messages = [stamped("map", "base", second, (float(second), 0.0, 0.0)) for second in (1, 2, 3)]
    for order in itertools.permutations(messages):
        buffer = TransformBuffer()
        for msg in order:
            buffer.set_transform(msg)
        assert buffer.at("map", "base", round(1.5 * NS)).translation == pytest.approx((1.5, 0, 0))


def test_old_transforms_go_and_a_clear_leaves_the_static_ones():
    buffer = arm()
    buffer.set_transform(stamped("map", "base", 12 + KEPT_S + 1))
    with pytest.raises(TransformError, match="is as old as the image"):
        find_transform(buffer, "map", "base", 11 * NS, 0)
    buffer.clear()
    with pytest.raises(TransformError, match="not connected"):
        buffer.at("map", "base", 0)
    buffer.set_transform(stamped("map", "base", 3))
    assert buffer.at("map", "camera", 3 * NS).translation == (0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    "msg",
    [
        stamped("map", "base", 13, (float("nan"), 0.0, 0.0)),
        stamped("map", "base", 13, rotation=(0.0, 0.0, 0.0, 0.0)),
        stamped("", "base", 13),
        stamped("map", "", 13),
        stamped("base", "base", 13),
    ],
)
def test_what_is_no_transform_is_ignored(msg):
    buffer = arm()
    buffer.set_transform(msg)
    assert buffer.newest("map", "base") == 12 * NS


def test_a_circle_of_frames_ends():
    buffer = TransformBuffer()
    buffer.set_transform_static(stamped("a", "b"))
    buffer.set_transform_static(stamped("b", "a"))
    buffer.set_transform_static(stamped("c", "d"))
    with pytest.raises(TransformError, match="not connected"):
        buffer.at("c", "a", 0)


def test_a_flood_of_frames_is_bounded():
    buffer = arm()
    for number in range(MAX_FRAMES + 5):
        buffer.set_transform(stamped("map", f"frame {number}", 1))
    assert len(buffer._links) == MAX_FRAMES
    assert buffer.at("map", "camera", 10 * NS).translation == (0.0, 0.0, 1.0)


def test_another_parent_replaces_the_first():
    buffer = arm()
    buffer.set_transform(stamped("odom", "base", 12))
    with pytest.raises(TransformError, match="not connected"):
        buffer.at("map", "camera", 12 * NS)
    assert buffer.at("odom", "camera", 12 * NS).translation == (0.0, 0.0, 1.0)
