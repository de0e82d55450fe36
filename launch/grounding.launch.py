"""Launches the grounding node: ``ros2 launch acs_ros grounding.launch.py image_topic:=/camera/color/image_raw``.

An empty argument leaves the parameter as it is in the parameter file. ``ros2 launch ... --show-args`` lists all
arguments.
"""

from __future__ import annotations

import os
import sys

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, SetEnvironmentVariable
from launch.events import matches_action
from launch.events.process import ProcessExited, ShutdownProcess
from launch.logging import get_logger
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue

from acs_ros.dds import PROFILE_VARIABLE, apply_profile
from acs_ros.files import shipped_file
from acs_ros.launch_checks import check_arguments, check_params_file, check_value, end_message

DEFAULT_PARAMS = str(shipped_file("config/tiny_qwen2_5_vl.yaml"))
TRUE_OR_FALSE = ["true", "false"]
SHORTEST_DELAY_S = 0.5  # without any, launch starts a process again before it hears what on_exit returns

# Launch arguments that set the parameter of the same name if they are not empty: type and description.
OVERRIDES: dict[str, tuple[type, str]] = {
    "model": (str, "short name, folder or Hugging Face id of the model"),
    "selector": (str, "auto, acs-free, acs-learned, greedy, ..."),
    "samples": (int, "responses sampled per phrase and frame"),
    "device": (str, "auto, cpu, cuda, cuda:1, ..."),
    "max_image_tokens": (int, "budget of image tokens of a picture; 0: the default of the model's family"),
    "coordinate_frame": (str, "family, 0-1000, resized, original or 0-1: how the model states coordinates"),
    "prefix_bytes": (int, "most bytes of images that stay read for further goals about the same frame; 0 keeps none"),
    "speculation": (bool, "draft nearly certain tokens and check them together, for speed"),
    "whole_responses": (bool, "let the model write on after the first box of a response"),
    "initial_query": (str, "initial standing queries, separated by semicolons"),
    "mode": (str, "continuous, or on_demand: subscribe to the camera only while a result is due"),
    "min_score": (float, "boxes with a lower score are not published"),
    "max_rate": (float, "maximum number of frames per second; 0: as many as the model can process"),
    "image_transport": (str, "raw or compressed; compressed images come on the topic of the raw ones and /compressed"),
    "cameras": (str, "names of several cameras, separated by blanks; their topics are ~/NAME/image and so on"),
    "use_depth": (bool, "use depth_topic and camera_info_topic, and publish ~/detections_3d"),
    "depth_transport": (str, "raw or compressedDepth, on the depth topic and /compressedDepth"),
    "target_frame": (str, "frame of ~/detections_3d, by /tf; empty: the camera's"),
    "tracking": (bool, "track the boxes between results and publish them on ~/tracks"),
}
# Launch arguments that remap a topic of the node if they are not empty.
TOPICS = {
    "image_topic": ("~/image", "camera images (sensor_msgs/Image, or CompressedImage on its /compressed)"),
    "depth_topic": ("~/depth", "depth images aligned with the camera's (sensor_msgs/Image, or CompressedImage)"),
    "camera_info_topic": ("~/camera_info", "calibration of the camera (sensor_msgs/CameraInfo)"),
    "query_topic": ("~/query", "phrases (std_msgs/String)"),
    "detections_topic": ("~/detections", "selected boxes (vision_msgs/Detection2DArray)"),
    "candidates_topic": ("~/candidates", "every sampled box (acs_msgs/CandidateArray)"),
    "debug_image_topic": ("~/debug_image", "drawn results (sensor_msgs/Image)"),
}


def make_node(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the node's action, once the launch arguments have their values.

    Raises:
        ValueError: an argument does not exist or has a wrong type, or there is no such parameter file.
    """
    check_arguments(context.argv, ARGUMENT_NAMES, __file__, sys.argv)
    value = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENT_NAMES}
    check_params_file(value["params_file"])
    for name, kind in (*((name, kind) for name, (kind, _) in OVERRIDES.items()), ("respawn_delay", float)):
        if value[name]:
            check_value(name, value[name], kind)
    overrides = {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, (kind, _) in OVERRIDES.items()
        if value[name]
    }
    for flag in ("autostart", "use_sim_time"):
        overrides[flag] = ParameterValue(LaunchConfiguration(flag), value_type=bool)
    node = LifecycleNode(
        package="acs_ros",
        executable="grounding_node",
        name=value["node_name"],
        namespace=value["namespace"],
        parameters=[value["params_file"], overrides],
        remappings=remappings(value),
        ros_arguments=["--log-level", value["log_level"]],
        respawn=value["respawn"] == "true",
        respawn_delay=max(SHORTEST_DELAY_S, float(value["respawn_delay"])),
        on_exit=lambda event, context: give_up(event),
        output="screen",
        emulate_tty=True,
    )
    return [node]


def give_up(event: ProcessExited) -> list[LaunchDescriptionEntity]:
    """Return the actions after the node's end: none, so that ``respawn`` holds, unless its set-up is wrong."""
    if not (message := end_message(event.returncode)):
        return []
    get_logger("grounding.launch").error(message)
    # The process is gone: the event only ends the wait for the respawn.
    return [EmitEvent(event=ShutdownProcess(process_matcher=matches_action(event.action)))]


def remappings(value: dict[str, str]) -> list[tuple[str, str]]:
    """Return (node's name, wanted name) pairs of the remapped topics."""
    pairs = [(private, value[name]) for name, (private, _) in TOPICS.items() if value[name]]
    for rule in value["remap"].split():
        name, _, wanted = rule.partition(":=")
        if not name or not wanted:
            raise RuntimeError(f"remap: {rule!r} is no rule like ~/left/image:=/left/color/image_raw")
        pairs.append((name, wanted))
    return pairs


ARGUMENTS = [
    DeclareLaunchArgument("params_file", default_value=DEFAULT_PARAMS, description="parameter file"),
    *(DeclareLaunchArgument(n, default_value="", description=text) for n, (_, text) in OVERRIDES.items()),
    *(DeclareLaunchArgument(n, default_value="", description=f"{t}; empty: {p}") for n, (p, t) in TOPICS.items()),
    DeclareLaunchArgument("remap", default_value="", description="more rules like ~/left/image:=/left/image_raw"),
    DeclareLaunchArgument("namespace", default_value="", description="namespace of the node"),
    DeclareLaunchArgument("node_name", default_value="grounding", description="name of the node"),
    DeclareLaunchArgument(
        "autostart",
        default_value="true",
        choices=TRUE_OR_FALSE,
        description="load the model and activate at once; false leaves that to a lifecycle manager",
    ),
    DeclareLaunchArgument(
        "respawn",
        default_value="true",
        choices=TRUE_OR_FALSE,
        description="restart the process when it dies, unless its parameters are wrong (exit code 2); with autostart "
        "it then loads its model again",
    ),
    DeclareLaunchArgument("respawn_delay", default_value="2.0", description="seconds before it is started again"),
    DeclareLaunchArgument(
        "use_sim_time", default_value="false", choices=TRUE_OR_FALSE, description="take the time from /clock"
    ),
    DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn or error"),
]
ARGUMENT_NAMES = [argument.name for argument in ARGUMENTS]


def generate_launch_description() -> LaunchDescription:
    """Return the launch description; called by ``ros2 launch``."""
    profile = SetEnvironmentVariable(PROFILE_VARIABLE, apply_profile(dict(os.environ)))
    return LaunchDescription([*ARGUMENTS, profile, OpaqueFunction(function=make_node)])
