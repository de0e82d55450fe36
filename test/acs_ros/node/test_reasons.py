"""Every reason of the running node, about stamps, queries, goals and places, with the situation that produces it."""

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
from reason_parts import told, unknown, without_row
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import SetBool

from acs_core.arguments import split_text
from acs_core.errors import PhraseError
from acs_ros.conversions.images import Frame
from acs_ros.conversions.transforms import TransformError
from acs_ros.node.camera import TimestampCheck
from acs_ros.node.grounding_node import GroundingNode
from acs_ros.node.query_manager import clean_queries
from acs_ros.node.transform_listener import Tf2Buffer, TransformListener

FILES = (
    "acs_ros/node/reporter.py",
    "acs_ros/node/camera.py",
    "acs_ros/node/synchronizer.py",
    "acs_ros/node/transform_listener.py",
    "acs_ros/node/cameras.py",
    "acs_ros/node/publishers.py",
    "acs_ros/node/ground_goal.py",
    "acs_ros/node/action_server.py",
    "acs_ros/node/query_manager.py",
    "acs_ros/node/inference_worker.py",
)
NO_REASONS = (
    # kinds of log lines
    "silence of …",
    "end of the silence of …",
    "qos of …",
    "stamps of …",
    "images of …",
    "image of a goal",
    "no answer",
    # lines of the log around a reason
    "image on … dropped: …",
    "goal … aborted: …",
    "images on …: …",
    "image of a goal: …",
    "cv_bridge converts raw images of … encodings, acs those of the others",
    "no answer for the frame of ….…: …",
    "the pictures of an answer could not be sent: …",
    "a task could not tell how it ended",
    "a task could not tell that it was abandoned",
    "what follows an answer failed",
    "the report of a job that could not be done failed itself",
    # of calls that ended before, with the reason that ended them
    "the worker is closed",
    "the model is gone",
    "nothing is asked any more",
    "the goal has no picture",
    "stopped when the answer was ready",
)
QOS = "an incompatible QoS (RELIABILITY); the two sides are not connected: change that side, or start this node with"


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


# (what happens, the text that it gives)
ROWS = (
    # --- stamps
    (lambda _: stamped(2e9, 0.0, sim_time=True), "use_sim_time is true, but nothing is published on /clock: …"),
    (
        lambda _: stamped(8.0, 100.0, before=10.0),
        "the stamps on /image jumped back by 2.00 s: a bag that began again, two publishers on one topic, or a clock "
        "that was set",
    ),
    (lambda _: stamped(0.0, 100.0), "the images on /image carry no stamp (0): fix the camera driver"),
    (
        lambda _: stamped(100.0, 2e9),
        "simulated and wall time are mixed: the last image on /image was stamped 23148 days ago, and this node goes by "
        "the wall clock: in a simulation start it with use_sim_time: true, else let the driver stamp by the host's "
        "clock",
    ),
    (
        lambda _: stamped(2e9, 100.0, sim_time=True),
        "simulated and wall time are mixed: the last image on /image was stamped 23148 days ahead, and this node goes "
        "by the simulated time of /clock: start the camera driver with use_sim_time: true too",
    ),
    (
        lambda _: stamped(90.0, 100.0),
        "the last image on /image was stamped 10.00 s ago: a bag played without use_sim_time, clocks of two machines "
        "that differ, or a queue on the way",
    ),
    (
        lambda _: stamped(90.0, 100.0, sim_time=True),
        "the last image on /image was stamped 10.00 s ago: two sources of simulated time, or a queue on the way",
    ),
    (
        lambda _: stamped(110.0, 100.0),
        "the last image on /image is stamped 10.00 s ahead of this machine's clock: synchronise the clocks, or set "
        "use_sim_time as the publisher has it",
    ),
    (
        lambda _: stamped(110.0, 100.0, sim_time=True),
        "the last image on /image is stamped 10.00 s ahead of /clock: two sources of simulated time, or a slow /clock",
    ),
    # --- queries
    (
        lambda _: raised(PhraseError, lambda: split_text("k" * 1_000_001)),
        "the query has 1000001 characters: name the objects in a few words each",
    ),
    (lambda _: asked(["a"] * 21), "21 phrases are more than max_queries, which is 2"),
    (lambda _: asked(["a", "b", "c"]), "3 phrases are more than max_queries, which is 2"),
    (lambda _: asked(["a", " "]), "phrase 2 of 2: the phrase is empty…"),
    # --- a running node
    (
        lambda node: node.depth(),
        "no place in space: no camera info came: a publisher is on /grounding/camera_info, but nothing came from it",
    ),
    (
        lambda node: node.depth(small_info()),
        "no place in space: no depth image within 0.05 s of the image's stamp: a publisher is on /grounding/depth, but "
        "nothing came from it",
    ),
    (
        lambda node: node.depth(small_info(), small_depth(stamp=9)),
        "no place in space: no depth image within 0.05 s of the image's stamp: the nearest on /grounding/depth is "
        "stamped 8.00 s after it; raise depth_tolerance, or fix the stamps of one driver",
    ),
    (
        lambda _: without_transforms(),
        "target_frame needs tf2_msgs, which cannot be imported: …",
    ),
    (
        target_without_depth,
        "target_frame changes nothing without use_depth: set use_depth: true, or leave target_frame empty",
    ),
    (lambda _: unknown_to_tf2(), "no transform from 'camera' to 'map': not there"),
    (
        lambda node: transport_of(node, "image/compressed"),
        "nobody publishes on /grounding/left/image; /grounding/left/image/compressed is published: set "
        "image_transport: compressed",
    ),
    (
        lambda node: remapped(node, "~/image:=/cam/image/compressed", "/cam/image/compressed", no_image),
        "nobody publishes on /cam/image/compressed/compressed; /cam/image/compressed is published: name the raw topic, "
        "/cam/image, to which /compressed is added",
    ),
    (
        lambda node: remapped(node, "~/image:=/cam/jpeg", "/cam/jpeg", no_image),
        "nobody publishes on /cam/jpeg/compressed; /cam/jpeg is published as CompressedImage: remap ~/image/compressed "
        "to it, and not ~/image",
    ),
    (
        lambda node: remapped(node, "~/depth:=/d/compressedDepth", "/d/compressedDepth", no_depth),
        "no depth image within 0.05 s of the image's stamp: nobody publishes on /d/compressedDepth/compressedDepth; "
        "/d/compressedDepth is published: name the raw topic, /d, to which /compressedDepth is added",
    ),
    (
        lambda node: transport_of(node, "image/theora"),
        "nobody publishes on /grounding/left/image; /grounding/left/image/theora is published, which is not decoded "
        "here: let the driver publish raw or compressed images, or run image_transport's republish",
    ),
    (
        lambda node: node.depth(small_info(), small_depth(stamp=9), small_depth(stamp=10)),
        "no place in space: no depth image within 0.05 s of the image's stamp: the nearest on /grounding/depth is "
        "stamped 8.00 s after it; they are 1.00 s apart, so either the clocks of the two drivers differ (let both "
        "stamp by one clock; a larger depth_tolerance would take depth of another moment), or depth stopped coming",
    ),
    (
        lambda node: node.message(node.active(use_depth=True), image=node.image()),
        "no place in space: the goal brought its own picture, which has no depth image",
    ),
    (
        lambda node: node.depth(small_info(frame="other")),
        "no place in space: the camera info on /grounding/camera_info is in the frame 'other', the image in …",
    ),
    (
        lambda node: node.depth(small_info(), small_depth(frame="other")),
        "no place in space: the depth image on /grounding/depth is in the frame 'other', the image in …",
    ),
    (
        lambda node: incompatible(node).node.statistics.snapshot().image_qos_problem,
        f"a publisher on /grounding/image offers {QOS} the parameter …image.subscription.reliability",
    ),
    (
        silent_and_incompatible,
        f"no images on /grounding/image for 0.2 s: a publisher on /grounding/image offers {QOS} the parameter …",
    ),
    (output_incompatible, f"a subscriber of /grounding/detections requests {QOS} the parameter …"),
    (images_again, "images come on /grounding/image again"),
    (silent_goal, "no image came within 0.2 s: a publisher is on /grounding/image, but sends nothing"),
    (
        other_type,
        "no image came within 0.2 s: /grounding/image is published as sensor_msgs/msg/CompressedImage, not as "
        "image_transport says",
    ),
    (
        lambda node: silent_goal(node, publishes=False),
        "no image came within 0.2 s: nobody publishes on /grounding/image",
    ),
    (
        lambda node: silent_goal(node, bad=True),
        "no image came within 0.2 s: the last image on /grounding/image could not be used: the image has no pixels: …",
    ),
    (
        lambda node: node.active().node.cameras.why_no_image("up"),
        "there is no camera 'up'",
    ),
    (goals_full, "1 goals wait already (max_goals)"),
    (late_goal, "the deadline of 0.05 s passed before it was its turn"),
    (
        lambda node: node.message(node.active(), camera="left"),
        "there is no camera 'left': the parameter cameras names none: leave the goal's camera empty",
    ),
    (
        lambda node: node.message(node.active(), deadline=-1.0),
        "deadline must be 0 (none) or more seconds, got -1.0",
    ),
    (
        lambda node: node.message(node.active(), min_score=1.5),
        "min_score must be at most 1 (negative: the node's own), got 1.5",
    ),
    (
        lambda node: node.message(node.active(), samples=1000),
        "samples must be at most 256 (0: the node's own), got 1000",
    ),
    (lambda node: goal_at(node, deactivate), "the node is not active: configure and activate it first"),
    (lambda node: goal_at(node, pause), "the node is paused: call ~/pause with data: false"),
    (lambda node: goal_then(node, pause), "the node is paused"),
    (lambda node: goal_then(node, deactivate), "the node was deactivated"),
    (lambda node: goal_then(node, lambda rig: rig.node._free_model()), "the model is freed"),
    (lambda node: goal_then(node, lambda rig: rig.node.close()), "the node stops"),
)


@pytest.mark.parametrize(("happens", "expected"), ROWS, ids=[row[1][:70] for row in ROWS])
def test_the_reason_names_the_cause(happens, expected, make_rig, grounder, image, until):
    text = happens(Node(make_rig, grounder, image, until))
    assert told(expected, text), text


def test_the_table_has_every_text():
    assert without_row(FILES, [expected for _, expected in ROWS], NO_REASONS) == []
    assert unknown(FILES, NO_REASONS) == []
