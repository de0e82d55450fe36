"""Starts the grounding node: ``ros2 launch acs_ros grounding.launch.py image_topic:=/camera/color/image_raw``.

An argument that is left empty leaves the parameter as the parameter file has it. ``ros2 launch ... --show-args`` lists
them all.
"""

from __future__ import annotations

import os

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue

from acs_ros.dds import PROFILE_VARIABLE, apply_profile
from acs_ros.files import shipped_file

DEFAULT_PARAMS = str(shipped_file("config/tiny_internvl.yaml"))
TRUE_OR_FALSE = ["true", "false"]

# Launch arguments that become the parameter of the same name when they are not empty: type and description.
OVERRIDES: dict[str, tuple[type, str]] = {
    "model": (str, "short name, folder or Hugging Face id of the model"),
    "selector": (str, "acs-free, acs-learned, greedy, ..."),
    "samples": (int, "responses sampled per phrase and frame"),
    "device": (str, "auto, cpu, cuda, cuda:1, ..."),
    "initial_query": (str, "phrases asked from the start, separated by semicolons"),
    "mode": (str, "continuous, or on_demand: listen to the camera only while somebody waits for an answer"),
    "min_score": (float, "boxes with a lower score are not published"),
    "max_rate": (float, "most frames asked per second; 0: as many as the model can"),
    "image_transport": (str, "raw or compressed"),
    "cameras": (str, "names of several cameras, separated by blanks; their topics are ~/NAME/image and so on"),
    "use_depth": (bool, "use depth_topic and camera_info_topic, and publish ~/detections_3d"),
    "tracking": (bool, "follow the boxes between answers on ~/tracks"),
}
# Launch arguments that remap a topic of the node when they are not empty.
TOPICS = {
    "image_topic": ("~/image", "camera images (sensor_msgs/Image; with compressed transport its /compressed)"),
    "depth_topic": ("~/depth", "depth images aligned with the camera's (sensor_msgs/Image)"),
    "camera_info_topic": ("~/camera_info", "calibration of the camera (sensor_msgs/CameraInfo)"),
    "query_topic": ("~/query", "phrases (std_msgs/String)"),
    "detections_topic": ("~/detections", "answers (vision_msgs/Detection2DArray)"),
    "candidates_topic": ("~/candidates", "every sampled box (acs_msgs/CandidateArray)"),
    "debug_image_topic": ("~/debug_image", "drawn answers (sensor_msgs/Image)"),
}


def make_node(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The node, once the arguments have their values."""
    value = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENT_NAMES}
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
        respawn_delay=float(value["respawn_delay"]),
        output="screen",
        emulate_tty=True,
    )
    return [node]


def remappings(value: dict[str, str]) -> list[tuple[str, str]]:
    """Pairs of the node's name for a topic and the wanted one."""
    pairs = [(private, value[name]) for name, (private, _) in TOPICS.items() if value[name]]
    if value["image_topic"] and value["image_transport"] == "compressed":
        pairs.append(("~/image/compressed", value["image_topic"] + "/compressed"))
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
        description="start the process again when it dies; with autostart it then loads its model again",
    ),
    DeclareLaunchArgument("respawn_delay", default_value="2.0", description="seconds before it is started again"),
    DeclareLaunchArgument(
        "use_sim_time", default_value="false", choices=TRUE_OR_FALSE, description="take the time from /clock"
    ),
    DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn or error"),
]
ARGUMENT_NAMES = [argument.name for argument in ARGUMENTS]


def generate_launch_description() -> LaunchDescription:
    """What ``ros2 launch`` asks for."""
    profile = SetEnvironmentVariable(PROFILE_VARIABLE, apply_profile(dict(os.environ)))
    return LaunchDescription([*ARGUMENTS, profile, OpaqueFunction(function=make_node)])
