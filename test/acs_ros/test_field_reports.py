"""Situations that users of other perception packages reported, on this one; docs/field_reports.md lists them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, Image

from acs_core.errors import ImageError
from acs_core.geometry import Box
from acs_ros.conversions.depth import box_in_space, depth_in_metres
from acs_ros.conversions.images import Frame, fill_image, header_of, image_to_rgb
from acs_ros.conversions.pinhole import Pinhole
from acs_ros.node.given_parameters import GivenParameters
from acs_ros.node.remappings import Remapping, without_effect

FOCAL = 500.0


@pytest.mark.parametrize("encoding", ["nv21", "nv12"])
def test_a_raspberry_cameras_own_format_is_decoded(encoding):
    """christianrauch/camera_ros #54"""
    msg = Image(width=4, height=2, step=4, encoding=encoding)
    msg.data.frombytes(bytes([200] * 8 + [128] * 4))  # bright, no colour
    rgb = image_to_rgb(msg)
    assert rgb.shape == (2, 4, 3) and np.ptp(rgb) <= 2 and rgb.mean() > 200


def test_padded_rows_of_v4l2_cameras_are_cut_off():
    """ros-perception/vision_opencv PR 394"""
    picture = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    msg = Image(width=3, height=2, step=16, encoding="rgb8")
    msg.data.frombytes(np.pad(picture.reshape(2, 9), ((0, 0), (0, 7)), constant_values=255).tobytes())
    assert (image_to_rgb(msg) == picture).all()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"step": 0}, "step is 0 bytes, but a row of 3 rgb8 pixels takes 9"),  # RobotecAI/o3de-ros2-gem #251
        ({"width": 0, "height": 0}, "it says 0 x 0; check the camera driver"),  # christianrauch/raspicam2_node #11
        ({"encoding": "RGB8"}, "unknown image encoding 'RGB8'; it is written rgb8: fix the camera driver"),
        ({"encoding": "bayer_RGGB8"}, "it is written bayer_rggb8"),
    ],
)
def test_what_is_wrong_with_an_image_is_named(wrong, said):
    msg = fill_image(Image(), np.zeros((2, 3, 3), np.uint8))
    for name, value in wrong.items():
        setattr(msg, name, value)
    with pytest.raises(ImageError, match=re.escape(said)):
        image_to_rgb(msg)


@pytest.mark.parametrize("missing", [np.nan, 0.0, np.inf, -np.inf])
def test_missing_depth_does_not_move_an_object(missing):
    """stereolabs/zed-ros-wrapper #374, #739; jsk-ros-pkg/jsk_recognition PR 2701"""
    metres = np.full((40, 40), 2.0, np.float32)
    metres[::2] = missing
    msg = Image(width=40, height=40, step=160, encoding="32FC1")
    msg.data.frombytes(metres.astype("<f4").tobytes())
    camera = Pinhole(FOCAL, FOCAL, 20, 20, (40, 40))
    found = box_in_space(Box(10, 10, 30, 30), depth_in_metres(msg), camera)
    assert found.center == pytest.approx((0, 0, 2.0)) and found.valid == pytest.approx(0.5, abs=0.1)


def test_drawn_answers_have_the_header_of_their_image(rig, image, until):
    """mgonzs13/yolo_ros PR 84"""
    drawn = rig.listen(Image, "/grounding/debug_image")
    rig.ask("key")
    rig.images.publish(image(stamp=7))
    until(lambda: drawn, "a drawn answer")
    assert (drawn[0].header.stamp.sec, drawn[0].header.frame_id) == (7, "camera_optical")


def test_images_without_a_stamp_are_reported(make_rig, grounder, image, until):
    """mgonzs13/yolo_ros #16, cra-ros-pkg/robot_localization #224"""
    rig = make_rig(lambda settings: grounder, stale_after=5.0, initial_query="key")
    rig.activate()
    rig.images.publish(image(stamp=0))
    until(lambda: rig.detections, "an answer")
    assert "carry no stamp (0): fix the camera driver" in rig.status()[2]["stamp_problem"]


def test_a_remapped_private_name_is_that_of_the_camera_and_a_wrong_one_is_reported(domain, grounder, until):
    """ros2/rcl #561, koide3/hdl_localization #98, Myzhar/ldrobot-lidar-ros2 #29"""
    import rclpy
    from rclpy.action import get_action_names_and_types
    from rclpy.context import Context
    from rclpy.node import Node

    from acs_ros.client.background_node import GoalClient
    from acs_ros.node.grounding_node import GroundingNode

    rules = ["~/image:=/camera/image", "image:=/camera/image_raw", "~/detection:=/found", "other:~/x:=/y"]
    rules += ["~/ground:=/find", "rosservice://~/pause:=/hold"]  # of an action and of a service
    rules += [  # as a launch file gives them to all nodes of a robot
        *("/tf:=tf", "/tf_static:=tf_static", "tf:=/tf", "/clock:=/sim/clock", "bond:=/bond", "/diagnostics:=/diag"),
        *("odom:=/odometry", "scan:=/lidar", "map:=/map", "/cmd_vel:=/base/cmd_vel"),
    ]
    arguments = ["--ros-args", *(word for rule in rules for word in ("-r", rule))]
    context = Context()
    rclpy.init(args=arguments, context=context, domain_id=domain)
    given = GivenParameters.of([*arguments, "-r", "__ns:=/"])
    node = GroundingNode(load=lambda settings: grounder, given=given, context=context, parameter_overrides=[])
    try:
        assert node.trigger_configure().name == "SUCCESS"
        assert [topic for _, topic, _ in node.cameras.inputs] == ["/camera/image"]
        # rcl of Jazzy remaps no actions (ros2/ros2 #1312); acs does, in the node and in its client.
        assert [name for name, _ in get_action_names_and_types(node)] == ["/find"]
        assert node.statistics.snapshot().setup_problem == (
            "the remappings image:=/camera/image_raw (did you mean ~/image?), ~/detection:=/found (did you mean "
            "~/detections?) change nothing: with these parameters, the node has no topic, service or action of that "
            "name"
        )
        one = without_effect([Remapping("grounding", "~/depth", "/d")], node, {})
        assert one.startswith("the remapping ~/depth:=/d changes nothing")
        assert without_effect([Remapping("", "~/list_queries", "stop")], node, {}) != ""
        assert "(did you mean ~/candidates?)" in without_effect([Remapping("", "/grounding/candidate", "/c")], node, {})
        assert without_effect([Remapping("grounding", "odom", "/o")], node, {}).startswith(
            "the remapping odom:=/o changes"
        )
        assert without_effect([Remapping("", "~/x", "~/list_queries"), Remapping("", "~/y", "/find")], node, {}) == ""
        own = ["--ros-args", "-r", "/grounding/ground:=/find"]
        asking = Node("asking", context=context, use_global_arguments=False, cli_args=own)
        goals = GoalClient(asking, "/grounding")
        until(goals.server_is_ready, "the action under its new name")
        goals.destroy()
        asking.destroy_node()
    finally:
        node.close()
        node.destroy_node()
        rclpy.shutdown(context=context)


def test_a_goal_says_why_what_it_found_has_no_place(make_rig, grounder, image, until):
    """mgonzs13/yolo_ros #77 and #27: no 3D boxes, and nothing said why."""
    rig = make_rig(lambda settings: grounder, use_depth=True)
    rig.activate()
    infos = rig.peer.create_publisher(CameraInfo, "/grounding/camera_info", 1)
    until(lambda: infos.get_subscription_count() == 1, "the subscription")

    def message(**fields):
        until(rig.ground.server_is_ready, "the action")
        sent = rig.send_goal(phrase="key", **fields)
        until(sent.done, "the acceptance")
        result = sent.result().get_result_async()
        # Several frames: rclpy answers that a goal is accepted before the node has it, and the first may be too early.
        show = (lambda: None) if fields else (lambda: rig.images.publish(image()))
        until(lambda: show() or result.done(), "the result")
        assert result.result().result.detections.detections and not result.result().result.detections_3d.detections
        return result.result().result.message

    assert message().startswith("no place in space: no camera info came: a publisher is on /grounding/camera_info")
    assert message(image=image()) == "no place in space: the goal brought its own picture, which has no depth image"
    grounder.reason = "no box"
    sent = rig.send_goal(phrase="key", image=image())
    until(sent.done, "the acceptance")
    result = sent.result().get_result_async()
    until(result.done, "the result")
    assert result.result().result.message == "no box"


@pytest.mark.parametrize("option", ["-p", "--param", "-r", "--remap"])
def test_an_assignment_with_the_wrong_sign_says_what_is_meant(option):
    with pytest.raises(
        ValueError, match=rf"^{option} samples=3 is not NAME:=VALUE; did you mean {option} samples:=3\?"
    ):
        GivenParameters.of(["--ros-args", option, "samples=3"])
    with pytest.raises(ValueError, match=f"^{option} samples is not NAME:=VALUE; write it as in {option} "):
        GivenParameters.of(["--ros-args", option, "samples"])


def test_a_model_in_the_home_folder_is_found(monkeypatch, make_rig, grounder, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    loaded = []
    rig = make_rig(lambda settings: loaded.append(settings) or grounder, model="~/models/mine", calibration="~/c.json")
    rig.activate()
    assert (loaded[0].model, loaded[0].calibration) == (f"{tmp_path}/models/mine", f"{tmp_path}/c.json")


def test_a_constant_offset_of_the_depth_clock_is_told_from_lost_messages(rig):
    """mgonzs13/yolo_ros #61: raising the tolerance would pair pictures of different moments."""
    synchronizer = rig.node.cameras._cameras[""].synchronizer
    for i in range(10):
        synchronizer.take_depth(Image(header=header_of(100 * 10**9 + i * 33_000_000, "")))
    said = synchronizer.complete(Frame(Image(header=header_of(103 * 10**9, "")))).no_depth
    assert "stamped 2.70 s before it; they are 0.03 s apart, so either the clocks of the two drivers differ" in said
    assert "raise depth_tolerance" not in said
    near = synchronizer.complete(Frame(Image(header=header_of(100 * 10**9 + 380_000_000, "")))).no_depth
    assert "raise depth_tolerance" in near
