"""The Fast DDS profile for camera images, valid names, and the quality of service of the node's topics.

The default shared-memory segment of Fast DDS is smaller than a VGA frame, so that best-effort images are lost. The
shipped profile enlarges it; the environment must name it before the first node of a process is made.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import MutableMapping
from pathlib import Path

from rclpy.exceptions import NameValidationException
from rclpy.qos import DurabilityPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.validate_full_topic_name import validate_full_topic_name

from acs_core.artifacts.json_io import shorten
from acs_core.option_types import Parse
from acs_ros.files import shipped_file

PROFILE_VARIABLE = "FASTDDS_DEFAULT_PROFILES_FILE"
MOST_NAME = 150  # characters; DDS allows 247, which include what ROS adds to the name of a node
# Policies that a start parameter like qos_overrides./grounding/image.subscription.reliability may override. It is read
# when the topic is made.
OVERRIDABLE = QoSOverridingOptions((QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY, QoSPolicyKind.DEPTH))
NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)  # fits every camera; the newest frame only
# The queue of requests. With the depth of ten in ROS's default profile, the eleventh of many clients that call at once
# displaces another request, whose client then waits for ever.
SERVICE = QoSProfile(depth=256, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def name_option(absolute: bool = False) -> Parse:
    """``type`` of an argparse option for the name of a topic, or with ``absolute`` for the full name of a node."""

    def parse(text: str) -> str:
        try:
            validate_full_topic_name(text if absolute or text.startswith("/") else f"/{text}")
        except (NameValidationException, ValueError):
            right = False
        else:
            right = len(text) <= MOST_NAME
        if not right:
            wanted = "a full name like /grounding" if absolute else "a name like /camera/image"
            limits = f"letters, digits, _ and /, at most {MOST_NAME} characters"
            raise argparse.ArgumentTypeError(f"must be {wanted} ({limits}), got {shorten(text)}")
        return text

    return parse


def profile_path() -> Path:
    """Path of the shipped Fast DDS profile."""
    return shipped_file("config/fastdds_profile.xml")


def apply_profile(env: MutableMapping[str, str] | None = None) -> str:
    """Name the shipped profile in ``env`` (default: this process) unless it names one. Returns the file in use."""
    target = os.environ if env is None else env
    return target.setdefault(PROFILE_VARIABLE, str(profile_path()))


def reliable(depth: int) -> QoSProfile:
    """Reliable profile with a queue of ``depth`` messages."""
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE)


def sensor(depth: int) -> QoSProfile:
    """Best-effort profile with a queue of ``depth`` messages, for data at camera rate."""
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT)
