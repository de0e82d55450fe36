"""The grounding node and a bag that plays to it: ``ros2 launch acs_ros demo.launch.py``.

Look at the answers with ``rviz:=true``, with Foxglove (config/foxglove_layout.json), or with
``ros2 topic echo /grounding/detections``.
"""

from __future__ import annotations

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from acs_ros.bags import DEMO_BAG
from acs_ros.files import shipped_file

PASSED_ON = {"model": "", "selector": "", "samples": "", "device": "", "log_level": "info"}


def generate_launch_description() -> LaunchDescription:
    """What ``ros2 launch`` asks for."""
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
    grounding = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(shipped_file("launch/grounding.launch.py"))),
        launch_arguments={name: LaunchConfiguration(name) for name in PASSED_ON}.items(),
    )
    player = Node(
        package="acs_ros",
        executable="bag_player",
        # It waits until the node listens, which is when the model is loaded.
        arguments=[LaunchConfiguration("bag"), "--hz", LaunchConfiguration("hz"), "--loop", "--now", "--wait", "900"],
        output="screen",
        emulate_tty=True,
    )
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(shipped_file("config/grounding.rviz"))],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return LaunchDescription([*arguments, grounding, player, rviz])
