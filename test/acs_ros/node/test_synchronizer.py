"""Which depth image, camera info and transform belong to an image."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from geometry_msgs.msg import TransformStamped
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from acs_ros.conversions.images import Frame, header_of, stamp_ns
from acs_ros.conversions.transforms import TransformBuffer, find_transform
from acs_ros.node.synchronizer import DEPTH_KEPT, INFO_KEPT, FrameSynchronizer, nearest

MS = 1_000_000
DEPTH, INFO = "/camera/depth", "/camera/camera_info"


def stamped(kind, stamp, **fields):
    return kind(header=header_of(stamp, "camera"), **fields)


@pytest.fixture
def buffer():
    """The transforms from the camera to the map."""
    return TransformBuffer()


@pytest.fixture
def synchronizer(buffer):
    node = SimpleNamespace(count_publishers=lambda topic: topic == DEPTH)
    parameters = SimpleNamespace(
        current=SimpleNamespace(depth_tolerance=0.05, transform_tolerance=0.1, max_image_pixels=10**6)
    )
    transforms = SimpleNamespace(
        find=lambda source, stamp, tolerance: find_transform(buffer, "map", source, stamp, tolerance),
        clear=buffer.clear,
    )
    return FrameSynchronizer(node, DEPTH, INFO, parameters, lambda: transforms)


@given(st.lists(st.integers(0, 300)), st.integers(0, 300), st.integers(0, 60))
def test_the_nearest_within_the_slop_is_taken(stamps, at, slop):
    found = nearest([stamped(Image, stamp * MS) for stamp in stamps], at * MS, slop * MS)
    apart = [abs(stamp - at) for stamp in stamps]
    if not apart or min(apart) > slop:
        assert found is None
    else:
        assert abs(stamp_ns(found.header) - at * MS) == min(apart) * MS


def test_the_approximate_time_synchronizer_would_take_the_depth_of_the_image_before():
    """Why it is not used: with the image first, message_filters' set is that of what came already."""
    filters = pytest.importorskip("message_filters")
    sources, sets = [filters.SimpleFilter() for _ in range(2)], []
    synchronizer = filters.ApproximateTimeSynchronizer(sources, 10, 0.05)
    synchronizer.registerCallback(lambda *found: sets.append([stamp_ns(msg.header) // MS for msg in found]))
    for number, stamp in ((1, 967), (0, 1000), (1, 1000)):
        sources[number].signalMessage(stamped(Image, stamp * MS))
    assert sets == [[1000, 967]]


def come(synchronizer, buffer, *stamps):
    """Depth image, camera info and transform of each stamp (ms) come; width and x are the stamp."""
    for stamp in stamps:
        synchronizer.take_depth(stamped(Image, stamp * MS, width=stamp))
        synchronizer.take_info(stamped(CameraInfo, stamp * MS, width=stamp))
        msg = TransformStamped(header=header_of(stamp * MS, "map"), child_frame_id="camera")
        msg.transform.translation.x = float(stamp)
        buffer.set_transform(msg)


@pytest.mark.parametrize(
    ("before", "during", "expected"),
    [
        ((1000, 1033, 1066), (1100, 1133), (1100, 1100, 1100.0)),  # all come 10 ms after the image
        ((1066, 1100), (1133, 1166), (1100, 1100, 1100.0)),  # or were there
        ((1066,), (1133,), (1133, 1133, 1100.0)),  # one was lost: the nearer neighbour
        ((1066,), (), (1066, 1066, 1066.0)),
        ((), (1110,), (1110, 1110, None)),
        # The model takes longer than messages are kept.
        ((1066,), range(1100, 1100 + 33 * (INFO_KEPT + 2), 33), (1100, 1100, 1100.0)),
        ((1066, 1100), range(1133, 1133 + 33 * (INFO_KEPT + 2), 33), (1100, 1100, 1100.0)),
    ],
)
def test_what_comes_while_the_model_works_wins_where_it_is_nearer(synchronizer, buffer, before, during, expected):
    come(synchronizer, buffer, *before)
    frame = synchronizer.expect(Frame(stamped(Image, 1100 * MS)))
    come(synchronizer, buffer, *during)
    found = synchronizer.complete(frame)
    moved = found.transform_to_target
    assert (found.depth.width, found.info.width, moved and moved.translation[0]) == expected
    assert (found.why_no_transform == "") is (moved is not None)


def test_a_jump_back_while_the_model_works_does_not_take_what_was_there(synchronizer, buffer):
    come(synchronizer, buffer, 1100)
    frame = synchronizer.expect(Frame(stamped(Image, 1100 * MS)))
    synchronizer.time_went_back()
    come(synchronizer, buffer, 100)
    found = synchronizer.complete(frame)
    assert (found.depth.width, found.info.width, found.transform_to_target.translation[0]) == (1100, 1100, 1100.0)
    after = synchronizer.complete(Frame(stamped(Image, 1100 * MS)))  # kept for that frame only
    assert after.depth is None and after.transform_to_target is None


def test_depth_and_camera_info_are_those_of_the_image(synchronizer):
    for stamp in (100, 133, 166, 200):
        synchronizer.take_depth(stamped(Image, (stamp + 4) * MS, width=stamp))
        synchronizer.take_info(stamped(CameraInfo, stamp * MS, width=stamp))
    found = synchronizer.complete(Frame(stamped(Image, 133 * MS)))
    assert (found.depth.width, found.info.width) == (133, 133)  # not the newest, which may show another region
    assert (found.no_depth, found.no_info) == ("", "")
    later = synchronizer.complete(Frame(stamped(Image, 280 * MS)))
    assert later.depth is None and later.info.width == 200  # a calibration holds until the next one
    assert later.no_depth == (
        f"no depth image within 0.05 s of the image's stamp: the nearest on {DEPTH} is stamped 0.08 s before it; raise "
        "depth_tolerance, or fix the stamps of one driver"
    )


def test_what_is_missing_is_named(synchronizer):
    found = synchronizer.complete(Frame(stamped(Image, 100 * MS)))
    assert found.no_depth.endswith(f"a publisher is on {DEPTH}, but nothing came from it")
    assert found.no_info == f"no camera info came: nobody publishes on {INFO}"
    synchronizer.take_depth(stamped(CompressedImage, 100 * MS, format="16UC1; compressedDepth"))
    assert "has no data" in synchronizer.complete(Frame(stamped(Image, 100 * MS))).no_depth


def test_a_jump_back_leaves_the_calibration_alone(synchronizer):
    synchronizer.take_depth(stamped(Image, 100 * MS))
    synchronizer.take_info(stamped(CameraInfo, 100 * MS))
    synchronizer.time_went_back()
    assert synchronizer.counts == (False, True)


@pytest.mark.parametrize("stamp", [-(10**9), 0, (2**31 - 1) * 10**9 + 999_999_999])
def test_the_stamps_that_a_message_can_have(synchronizer, stamp):
    synchronizer.take_depth(stamped(Image, stamp))
    synchronizer.take_info(stamped(CameraInfo, stamp))
    found = synchronizer.complete(Frame(stamped(Image, stamp)))
    assert stamp < 0 or (found.depth is not None and found.info is not None)


def test_few_messages_are_kept(synchronizer):
    for stamp in range(DEPTH_KEPT + 1):
        synchronizer.take_depth(stamped(Image, stamp * MS * 100))
    assert synchronizer.complete(Frame(stamped(Image, 0))).depth is None
