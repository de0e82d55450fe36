"""Launches the grounding node and a bag player: ``ros2 launch acs_ros demo.launch.py``.

View the results with ``rviz:=true``, with Foxglove (config/foxglove_layout.json), or with ``ros2 topic echo
/grounding/detections``.
"""

from __future__ import annotations

import sys

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction, Shutdown
from launch.conditions import IfCondition
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from acs_ros.bags.bags import DEMO_BAG, FRAME_ID
from acs_ros.files import shipped_file
from acs_ros.launch_checks import WRONG_SETUP, check_arguments, check_value

PLAYER_FAILED = 1  # exit code of bag_player
PASSED_ON = {"model": "", "selector": "", "samples": "", "device": "", "log_level": "info"}


def stop_without_player(event: ProcessExited) -> list[LaunchDescriptionEntity]:
    """Return the actions after the player's end: without it the demo would wait for images for ever."""
    if event.returncode not in (PLAYER_FAILED, WRONG_SETUP):  # ended by a signal: launch stops the node by itself
        return []
    return [Shutdown(reason="the bag cannot be played, as bag_player says above")]


def generate_launch_description() -> LaunchDescription:
    """Return the launch description; called by ``ros2 launch``."""
    arguments = [
        DeclareLaunchArgument("bag", default_value=str(DEMO_BAG), description="bag with images and what they show"),
        DeclareLaunchArgument("hz", default_value="1.0", description="frames per second"),
        DeclareLaunchArgument(
            "rviz", default_value="false", choices=["true", "false"], description="show the answers in RViz"
        ),
        *(
            DeclareLaunchArgument(name, default_value=default, description="as in grounding.launch.py")
            for name, default in PASSED_ON.items()
        ),
    ]
    names = [argument.name for argument in arguments]

    def check(context: LaunchContext) -> None:
        check_arguments(context.argv, names, __file__, sys.argv)
        check_value("hz", LaunchConfiguration("hz").perform(context), float)

    grounding = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(shipped_file("launch/grounding.launch.py"))),
        launch_arguments={name: LaunchConfiguration(name) for name in PASSED_ON}.items(),
    )
    player = Node(
        package="acs_ros",
        executable="bag_player",
        # --wait: the node subscribes only after it has loaded the model.
        arguments=[LaunchConfiguration("bag"), "--hz", LaunchConfiguration("hz"), "--loop", "--now", "--wait", "900"],
        output="screen",
        emulate_tty=True,
        on_exit=lambda event, context: stop_without_player(event),
    )
    # The bag has no transforms, and RViz calls a fixed frame an error that tf does not have.
    frame = Node(
        package="tf2_ros",
        executable="static_transform_publisher",
        # x to the right, y down, z forward, as optical frames have it.
        arguments=["--frame-id", "map", "--child-frame-id", FRAME_ID, "--roll", "-1.5708", "--yaw", "-1.5708"],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(shipped_file("config/grounding.rviz"))],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return LaunchDescription([*arguments, OpaqueFunction(function=check), grounding, player, frame, rviz])
