"""Every reason of the running node, about stamps, queries, goals and places, with the situation that produces it."""

from __future__ import annotations

import pytest
from node_situations import (
    Node,
    asked,
    deactivate,
    goal_at,
    goal_then,
    goals_full,
    images_again,
    incompatible,
    late_goal,
    no_depth,
    no_image,
    other_type,
    output_incompatible,
    pause,
    raised,
    remapped,
    silent_and_incompatible,
    silent_goal,
    small_depth,
    small_info,
    stamped,
    target_without_depth,
    transport_of,
    unknown_to_tf2,
    without_transforms,
)
from reason_parts import told, unknown, without_row

from acs_core.arguments import split_text
from acs_core.errors import PhraseError

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
