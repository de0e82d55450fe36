"""Quality of service of the node's topics: the defaults, and which policies a parameter may override.

Each topic has parameters like ``qos_overrides./grounding/image.subscription.reliability``; they are read when the topic
is made, so they are given at start.
"""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

OVERRIDABLE = QoSOverridingOptions((QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY, QoSPolicyKind.DEPTH))
NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)  # hears every camera, and only the newest frame
# Requests that wait until a thread has time for them. With the ten of ROS's default profile, the eleventh of many
# clients that ask at once pushes out another one, whose client then waits for ever.
SERVICE = QoSProfile(depth=256, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def reliable(depth: int) -> QoSProfile:
    """Nothing is lost, up to ``depth`` messages that wait."""
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE)


def sensor(depth: int) -> QoSProfile:
    """What comes at camera rate, and may be lost."""
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT)
