"""Situations of a running node that produce its reasons: for stamps, queries, goals, images and places."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import rclpy
from process_parts import fresh_domain
from rclpy.context import Context
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import SetBool

from acs_core.errors import PhraseError
from acs_ros.conversions.images import Frame
from acs_ros.conversions.transforms import TransformError
from acs_ros.node.camera import TimestampCheck
from acs_ros.node.grounding_node import GroundingNode
from acs_ros.node.query_manager import clean_queries
from acs_ros.node.transform_listener import Tf2Buffer, TransformListener


def raised(kind, call):
    with pytest.raises(kind) as error:
        call()
    return str(error.value)


def stamped(stamp, now, sim_time=False, before=None):
    check = TimestampCheck("/image")
    if before is not None:
        check.judge(before, now, 5.0, sim_time)
    return check.judge(stamp, now, 5.0, sim_time)[0]


def asked(phrases, **limits):
    settings = type("Limits", (), {"max_queries": 2, "max_phrase_chars": 20} | limits)
    return raised(PhraseError, lambda: clean_queries(phrases, settings))


class Node:
    """What the rows about a running node are made with."""

    def __init__(self, make_rig, grounder, image, until):
        self.make_rig, self.grounder, self.image, self.until = make_rig, grounder, image, until

    def active(self, **parameters):
        rig = self.make_rig(lambda settings: self.grounder, **parameters)
        rig.activate()
        return rig

    def goal(self, rig, **fields):
        """The future of a goal's result."""
        self.until(rig.ground.server_is_ready, "the action")
        sent = rig.send_goal(**{"phrase": "key"} | fields)
        self.until(sent.done, "the acceptance")
        return sent.result().get_result_async()

    def message(self, rig, **fields):
        """The message of a goal's result."""
        result = self.goal(rig, **fields)
        self.until(result.done, "the result")
        return result.result().result.message

    def depth(self, *messages, **parameters):
        """The message on /diagnostics after an image and these depth images and camera infos."""
        rig = self.active(use_depth=True, initial_query="key", **parameters)
        senders = {
            Image: rig.peer.create_publisher(Image, "/grounding/depth", 10),
            CameraInfo: rig.peer.create_publisher(CameraInfo, "/grounding/camera_info", 10),
        }
        self.until(lambda: all(p.get_subscription_count() == 1 for p in senders.values()), "the subscriptions")
        seen = rig.node.cameras._cameras[""]
        for msg in messages:
            senders[type(msg)].publish(msg)
            self.until(
                lambda m=msg: (
                    seen.synchronizer.counts[1] if isinstance(m, CameraInfo) else m in seen.synchronizer._depths
                ),
                "its arrival",
            )
        rig.images.publish(self.image())
        self.until(lambda: rig.detections, "an answer")
        return rig.status()[1]


def without_transforms():
    """The reason of a node that has no tf2_msgs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tf2_msgs.msg", None)
        return raised(TransformError, lambda: TransformListener(None, "map").find("camera", 1, 0.0))


def unknown_to_tf2():
    """The reason of tf2's buffer."""

    class Buffer:
        def __init__(self, cache_time):
            pass

        def lookup_transform(self, *_):
            raise KeyError("not there")

    tf2 = SimpleNamespace(Buffer=Buffer, ExtrapolationException=ValueError, TransformException=KeyError)
    return raised(TransformError, lambda: Tf2Buffer(tf2).at("map", "camera", 1)).replace("'not there'", "not there")


def transport_of(node, published):
    """Why no image comes from the camera "left", of which another transport is published."""
    rig = node.make_rig(lambda settings: node.grounder, cameras="left")
    rig.peer.create_publisher(CompressedImage, f"/grounding/left/{published}", 10)
    rig.node.trigger_configure()
    node.until(lambda: published in rig.node.cameras.why_no_image("left"), "the other transport")
    return rig.node.cameras.why_no_image("left")


def remapped(node, rule, published, reason):
    """The ``reason`` of a node that reads compressed images and depth, given a rule, while this is published."""
    arguments = ["--ros-args", "-r", rule]
    context = Context()
    with fresh_domain() as domain:
        rclpy.init(args=arguments, context=context, domain_id=domain)
        overrides = {"image_transport": "compressed", "use_depth": True, "depth_transport": "compressedDepth"}
        made = GroundingNode(
            load=lambda settings: node.grounder,
            context=context,
            parameter_overrides=[Parameter(name, value=value) for name, value in overrides.items()],
        )
        try:
            made.create_publisher(CompressedImage, published, 1)
            made.trigger_configure()
            node.until(lambda: made.count_publishers(published), "the publisher")
            return reason(made)
        finally:
            made.close()
            made.destroy_node()
            rclpy.shutdown(context=context)


def target_without_depth(node):
    """The warning at configure."""
    rig, warnings = node.make_rig(lambda settings: node.grounder, target_frame="map"), []
    with pytest.MonkeyPatch.context() as patch:
        logger = SimpleNamespace(info=lambda line: None, warning=warnings.append)
        patch.setattr(rig.node, "get_logger", lambda: logger)
        assert rig.node.trigger_configure().name == "SUCCESS"
    return warnings[-1]


def no_image(made):
    return made.cameras.why_no_image("")


def no_depth(made):
    return made.cameras.add_companions(Frame(CompressedImage())).no_depth


def of_the_camera(msg, frame="camera_optical", stamp=1):
    msg.header.frame_id, msg.header.stamp.sec = frame, stamp
    return msg


def small_info(frame="camera_optical"):
    k = [10.0, 0, 4, 0, 10, 3, 0, 0, 1]
    return of_the_camera(CameraInfo(width=8, height=6, k=k, distortion_model="plumb_bob"), frame)


def small_depth(**of):
    msg = Image(width=8, height=6, step=16, encoding="16UC1")
    msg.data.frombytes(np.full((6, 8), 2000, "<u2").tobytes())
    return of_the_camera(msg, **of)


def incompatible(node):
    name = "qos_overrides./grounding/image.subscription.reliability"
    rig = node.make_rig(lambda settings: node.grounder, image_timeout=0.2, **{name: "reliable"})
    rig.peer.destroy_publisher(rig.images)
    rig.peer.create_publisher(Image, "/grounding/image", QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
    assert rig.node.trigger_configure().name == rig.node.trigger_activate().name == "SUCCESS"
    node.until(lambda: rig.node.statistics.snapshot().image_qos_problem, "the mismatch")
    return rig


def silent_and_incompatible(node):
    rig = incompatible(node)
    said = [""]

    def looks():
        said[0] = rig.diagnostics[-1].status[0].message
        return "no images" in said[0]

    node.until(looks, "the silence")
    return said[0]


def output_incompatible(node):
    rig = node.active(**{"qos_overrides./grounding/detections.publisher.reliability": "best_effort"})
    node.until(lambda: rig.node.statistics.snapshot().output_qos_problem, "the mismatch")
    return rig.node.statistics.snapshot().output_qos_problem


def silent_goal(node, publishes=True, bad=False):
    rig = node.active(image_timeout=0.2)
    if bad:
        rig.images.publish(Image())
        node.until(lambda: rig.node.statistics.snapshot().bad_images, "the bad image")
    if not publishes:
        rig.peer.destroy_publisher(rig.images)
        node.until(lambda: rig.node.count_publishers("/grounding/image") == 0, "the publisher's end")
    return node.message(rig)


def other_type(node):
    rig = node.active(image_timeout=0.2)
    rig.peer.destroy_publisher(rig.images)
    context = Context()  # a context has one type of a topic
    rclpy.init(context=context, domain_id=rig.domain)
    other = rclpy.create_node("other", context=context)
    try:
        other.create_publisher(CompressedImage, "/grounding/image", 10)
        node.until(lambda: rig.node.cameras.other_type(""), "the type")
        node.until(lambda: "it is published as" in rig.diagnostics[-1].status[0].message, "the same on /diagnostics")
        return node.message(rig)
    finally:
        other.destroy_node()
        rclpy.shutdown(context=context)


def goals_full(node):
    rig = node.active(max_goals=1, image_timeout=60.0)
    node.goal(rig)
    node.until(lambda: rig.node.goals.count == 1, "the first goal")
    return node.message(rig)


def late_goal(node):
    rig = node.active()
    node.grounder.gate.clear()
    node.goal(rig, image=node.image())
    node.until(lambda: node.grounder.running, "the model at work")
    said = node.message(rig, image=node.image(), deadline=0.05)
    node.grounder.gate.set()
    return said


def goal_at(node, step):
    """The message of a goal that was sent after ``step(rig)``."""
    rig = node.active(image_timeout=60.0)
    step(rig)
    return node.message(rig)


def goal_then(node, step):
    """The message of a goal that waits when ``step(rig)`` is done."""
    rig = node.active(image_timeout=60.0)
    result = node.goal(rig)
    node.until(lambda: rig.node.goals.count == 1, "the goal")
    step(rig)
    node.until(result.done, "the result")
    return result.result().result.message


def images_again(node):
    lines = []
    rig = node.active(image_timeout=0.2)
    rig.node.reporter.log.info = lambda kind, text: lines.append(text) or True
    node.until(lambda: any(rig.node.reporter._silent.values()), "the silence")
    rig.images.publish(node.image())
    node.until(lambda: lines, "the line")
    return lines[0]


def pause(rig):
    assert rig.call(SetBool, "pause", data=True).success


def deactivate(rig):
    assert rig.node.trigger_deactivate().name == "SUCCESS"
