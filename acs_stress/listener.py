"""A peer that hears everything the node publishes, until somebody kills it: ``python -m acs_stress.listener``."""

from __future__ import annotations

import sys

import rclpy
from acs_msgs.msg import CandidateArray
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

from acs_stress.robot import NODE

TOPICS = (
    (Detection2DArray, "detections"),
    (CandidateArray, "candidates"),
    (Image, "debug_image"),
    (Image, "attention_image"),
)


def main() -> int:
    """Listen; says "hears" once the node's answers are there to be heard."""
    with rclpy.init():
        node = Node("listener")
        for kind, name in TOPICS:
            node.create_subscription(kind, f"{NODE}/{name}", lambda _: None, QoSProfile(depth=1))
        node.create_subscription(DiagnosticArray, "/diagnostics", lambda _: None, QoSProfile(depth=1))
        while not node.count_publishers(f"{NODE}/detections"):
            rclpy.spin_once(node, timeout_sec=0.1)
        print("hears", flush=True)
        rclpy.spin(node)
    return 0


if __name__ == "__main__":
    sys.exit(main())
