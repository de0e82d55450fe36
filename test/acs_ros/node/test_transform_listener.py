"""Transforms of /tf and /tf_static: with tf2's buffer, and with our own."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from transform_parts import stamped
from vision_msgs.msg import Detection3DArray

from acs_ros.conversions.images import NS
from acs_ros.conversions.transforms import NoTransformAt, TransformBuffer, TransformError, find_transform
from acs_ros.node import transform_listener
from acs_ros.node.transform_listener import Tf2Buffer, TransformListener, make_buffer

STAND_INS = Path(__file__).resolve().parents[2] / "helpers" / "stand_ins"
WARN = 1
HALF = 0.5**0.5


@pytest.fixture
def stand_in(monkeypatch):
    """tf2_ros of the helpers, as if it were installed."""
    monkeypatch.syspath_prepend(str(STAND_INS))
    before = sys.modules.pop("tf2_ros", None)
    yield importlib.import_module("tf2_ros")
    del sys.modules["tf2_ros"]
    if before is not None:
        sys.modules["tf2_ros"] = before


def test_tf2_is_used_where_it_is_installed(stand_in):
    buffer = make_buffer()
    assert isinstance(buffer, Tf2Buffer) and isinstance(buffer._buffer, stand_in.Buffer)
    buffer.set_transform(stamped("map", "camera", 5, (1.0, 0.0, 0.0)), "test")
    buffer.set_transform_static(stamped("base", "camera", 0, (0.0, 2.0, 0.0)), "test")
    assert buffer.at("map", "camera", 5 * NS).translation == (1.0, 0.0, 0.0)
    assert buffer.at("base", "camera", 7 * NS).translation == (0.0, 2.0, 0.0)
    assert buffer.newest("map", "camera") == 5 * NS
    with pytest.raises(NoTransformAt):
        buffer.at("map", "camera", 6 * NS)
    assert find_transform(buffer, "map", "camera", 6 * NS, 1.0).translation == (1.0, 0.0, 0.0)
    with pytest.raises(TransformError, match=r"is stamped 1\.00 s before the image: raise transform_tolerance"):
        find_transform(buffer, "map", "camera", 6 * NS, 0.5)
    with pytest.raises(TransformError, match=r"no transform from 'lidar' to 'map': .*does not exist"):
        buffer.at("map", "lidar", 5 * NS)
    buffer.clear()
    assert buffer.at("base", "camera", 7 * NS).translation == (0.0, 2.0, 0.0)
    with pytest.raises(NoTransformAt):
        buffer.at("map", "camera", 5 * NS)
    with pytest.raises(TransformError, match=r"no transform from 'camera' to 'map': Could not find a connection"):
        find_transform(buffer, "map", "camera", 5 * NS, 1.0)


def test_without_tf2_or_with_a_broken_one_the_buffer_is_ours(monkeypatch, stand_in):
    monkeypatch.setattr(stand_in, "Buffer", None)
    assert isinstance(make_buffer(), TransformBuffer)
    monkeypatch.setattr(transform_listener.importlib.util, "find_spec", lambda name: None)
    assert isinstance(make_buffer(), TransformBuffer)


unit = st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.3)
step = st.tuples(st.tuples(*[st.floats(-5, 5)] * 3), unit)


@settings(max_examples=50)
@given(
    st.lists(st.integers(0, 4), min_size=5, max_size=5),
    st.lists(st.lists(step, min_size=3, max_size=3), min_size=5, max_size=5),
    st.floats(10, 12),
)
def test_ours_gives_what_tf2_gives(parents, steps, seconds):
    """In a tree of 6 frames, each with 3 transforms to its parent, of which one frame is static."""
    tf2_ros = pytest.importorskip("tf2_ros")
    theirs, ours = Tf2Buffer(tf2_ros), TransformBuffer()
    for child in range(1, 6):
        for second, (translation, rotation) in zip((10, 11, 12), steps[child - 1], strict=True):
            q = tuple(float(v) for v in np.array(rotation) / np.linalg.norm(rotation))
            msg = stamped(f"f{parents[child - 1] % child}", f"f{child}", second, translation, q)
            for buffer in (theirs, ours):
                (buffer.set_transform_static if child == 3 else buffer.set_transform)(msg, "test")
    for target, source in (("f0", "f5"), ("f5", "f0"), ("f4", "f5"), ("f2", "f3")):
        stamp = round(seconds * NS)
        a, b = theirs.at(target, source, stamp), ours.at(target, source, stamp)
        assert a.apply((1.0, 2.0, 3.0)) == pytest.approx(b.apply((1.0, 2.0, 3.0)), abs=1e-5)
        for outside in (9 * NS, 13 * NS):
            outcomes = [_outcome(buffer, target, source, outside) for buffer in (theirs, ours)]
            assert outcomes[0] == outcomes[1]


def _outcome(buffer, target, source, stamp):
    try:
        buffer.at(target, source, stamp)
    except TransformError as error:
        return type(error)
    return None


def test_without_the_messages_the_reason_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2_msgs.msg", None)
    with pytest.raises(TransformError, match="target_frame needs tf2_msgs, which cannot be imported: "):
        TransformListener(None, "map").find("camera", NS, 0.1)


@pytest.fixture
def placed_rig(make_rig, grounder, until):
    messages = pytest.importorskip("tf2_msgs.msg")
    rig = make_rig(lambda settings: grounder, use_depth=True, target_frame="/map", transform_tolerance=0.5)
    rig.tf = rig.peer.create_publisher(messages.TFMessage, "/tf", 10)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    rig.tf_static = rig.peer.create_publisher(messages.TFMessage, "/tf_static", latched)
    rig.depths = rig.peer.create_publisher(Image, "/grounding/depth", 10)
    rig.infos = rig.peer.create_publisher(CameraInfo, "/grounding/camera_info", 10)
    rig.TFMessage = messages.TFMessage
    rig.activate()
    rig.places = rig.listen(Detection3DArray, "/grounding/detections_3d")
    inputs = (rig.tf, rig.tf_static, rig.depths, rig.infos)
    until(lambda: all(p.get_subscription_count() == 1 for p in inputs), "subscriptions")
    rig.ask("key")
    return rig


def send_inputs(rig, until, stamp):
    depth = Image(height=6, width=8, encoding="16UC1", step=16, data=np.full(48, 2000, "<u2").tobytes())
    info = CameraInfo(width=8, height=6, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [10.0, 0, 4, 0, 10, 3, 0, 0, 1]
    for msg in (depth, info):
        msg.header.stamp.sec, msg.header.frame_id = stamp, "camera_optical"
    rig.depths.publish(depth)
    rig.infos.publish(info)
    synchronizer = rig.node.cameras._cameras[""].synchronizer
    until(lambda: all(synchronizer.counts), "depth and camera info")


def test_boxes_are_placed_in_the_target_frame_at_the_stamp_of_the_image(placed_rig, image, until):
    rig = placed_rig
    # The usual mount: the camera looks along x of its body, 1 m above the ground of a base that drives along x.
    optical = (-0.5, 0.5, -0.5, 0.5)
    rig.tf_static.publish(rig.TFMessage(transforms=[stamped("base", "camera_optical", 0, (0.0, 0.0, 1.0), optical)]))
    rig.tf.publish(rig.TFMessage(transforms=[stamped("map", "base", s, (float(s), 0.0, 0.0)) for s in (1, 3)]))
    buffer = rig.node.cameras._transforms._buffer
    until(lambda: _outcome(buffer, "map", "camera_optical", 2 * NS) is None, "the transforms")
    send_inputs(rig, until, 2)
    rig.images.publish(image(stamp=2))
    until(lambda: rig.places and rig.detections, "an answer")
    (found,) = rig.places[0].detections
    header = rig.places[0].header
    assert (header.frame_id, header.stamp.sec, found.header.frame_id) == ("map", 2, "map")
    # In the camera (-0.3, 0.1, 2): 2 m ahead, 0.3 m to the left, 0.1 m down; the base is at x = 2 then.
    at, turn = found.bbox.center.position, found.bbox.center.orientation
    assert (at.x, at.y, at.z) == pytest.approx((4.0, 0.3, 0.9))
    assert abs(np.dot((turn.x, turn.y, turn.z, turn.w), optical)) == pytest.approx(1)  # q and -q are one rotation
    assert found.results[0].pose.pose == found.bbox.center
    # The 2D detection has the pose in the camera's frame, which its header names.
    flat = rig.detections[0]
    assert flat.header.frame_id == "camera_optical"
    pose = flat.detections[0].results[0].pose.pose.position
    assert (pose.x, pose.y, pose.z) == pytest.approx((-0.3, 0.1, 2.0))
    assert rig.status()[0] == 0


@pytest.mark.parametrize(("back", "kept"), [(0.001, True), (2.0, False)])
def test_an_image_out_of_order_leaves_the_transforms_alone(placed_rig, image, until, back, kept):
    rig = placed_rig
    rig.tf.publish(rig.TFMessage(transforms=[stamped("map", "camera_optical", second) for second in (10, 20)]))
    buffer = rig.node.cameras._transforms._buffer
    until(lambda: _outcome(buffer, "map", "camera_optical", 15 * NS) is None, "the transforms")
    for count, nanoseconds in enumerate((15 * NS, 15 * NS - round(back * NS)), 1):
        msg = image()
        msg.header.stamp.sec, msg.header.stamp.nanosec = divmod(nanoseconds, NS)
        rig.images.publish(msg)
        until(lambda count=count: len(rig.detections) == count, "an answer")
    assert rig.node.statistics.snapshot().clock_jumps == 1
    assert (_outcome(buffer, "map", "camera_optical", 15 * NS) is None) is kept


def test_without_a_transform_2d_goes_on_and_the_reason_is_in_the_status(placed_rig, image, until):
    rig = placed_rig
    send_inputs(rig, until, 2)
    rig.images.publish(image(stamp=2))
    until(lambda: rig.places and rig.detections, "an answer")
    assert not rig.places[0].detections and rig.places[0].header.frame_id == "map"
    assert rig.detections[0].detections[0].results[0].pose.pose.position.z == pytest.approx(2.0)
    level, message, values = rig.status()
    assert level == WARN and values["depth_problem"].startswith("no transform from 'camera_optical' to 'map'")
    assert message.startswith("no place in space: no transform from 'camera_optical' to 'map'")
    rig.tf.publish(rig.TFMessage(transforms=[stamped("map", "camera_optical", 1)]))
    buffer = rig.node.cameras._transforms._buffer
    until(lambda: _outcome(buffer, "map", "camera_optical", NS) is None, "the transform")
    send_inputs(rig, until, 3)
    rig.images.publish(image(stamp=3))
    until(lambda: len(rig.places) == 2, "an answer")
    assert "is stamped 2.00 s before the image: raise transform_tolerance" in rig.status()[1]


def test_on_demand_depth_may_come_after_its_image(make_rig, grounder, image, until):
    """The camera is not subscribed to any more when the depth image comes."""
    rig = make_rig(lambda settings: grounder, use_depth=True, mode="on_demand")
    assert rig.node.trigger_configure().name == rig.node.trigger_activate().name == "SUCCESS"
    rig.depths = rig.peer.create_publisher(Image, "/grounding/depth", 10)
    rig.infos = rig.peer.create_publisher(CameraInfo, "/grounding/camera_info", 10)
    until(lambda: rig.queries.get_subscription_count() == rig.peer.count_publishers("/grounding/detections") == 1, "")
    grounder.gate.clear()
    inputs = (rig.images, rig.depths, rig.infos)
    for stamp in (2, 3):
        rig.ask(f"key {stamp}")
        until(lambda: all(p.get_subscription_count() == 1 for p in inputs), "the subscriptions")
        rig.images.publish(image(stamp=stamp))
        until(lambda: grounder.running, "the model at work")
        until(lambda: rig.images.get_subscription_count() == 0, "the end of the image subscription")
        send_inputs(rig, until, stamp)
        grounder.gate.set()
        until(lambda stamp=stamp: len(rig.detections) == stamp - 1, "an answer")
        assert rig.detections[-1].detections[0].results[0].pose.pose.position.z == pytest.approx(2.0)
        until(lambda: rig.depths.get_subscription_count() == 0, "the end of all subscriptions")
        grounder.gate.clear()
    grounder.gate.set()
