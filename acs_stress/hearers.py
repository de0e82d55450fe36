"""Those who subscribe to everything and do not keep up."""

from __future__ import annotations

import time
from typing import Any

import rclpy
from acs_msgs.msg import CandidateArray
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

TOPICS = ((Detection2DArray, "detections"), (CandidateArray, "candidates"), (Image, "debug_image"))
DEPTH = 1000  # messages that wait, of each topic


class Hearer:
    """Subscribes, reliably, to the answers below ``prefixes`` (like "/grounding/cam_1") and takes ``rate`` messages a
    second of all topics together, for ``seconds``; 0: none, ever."""

    def __init__(self, node: Node, prefixes: list[str], rate: float, seconds: float) -> None:
        self._node, self._rate, self._seconds = node, rate, seconds
        self._heard = 0
        qos = QoSProfile(depth=DEPTH)
        for prefix in prefixes:
            for kind, name in TOPICS:
                node.create_subscription(kind, f"{prefix}/{name}", self._hear, qos)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._hear, qos)
        self._topics = [f"{prefix}/{name}" for prefix in prefixes for _, name in TOPICS]

    def connected(self) -> bool:
        """Whether the node's outputs are there."""
        return all(self._node.count_publishers(topic) for topic in self._topics)

    def flood(self) -> dict[str, Any]:
        """Take some of what comes."""
        until = time.monotonic() + self._seconds
        while (left := until - time.monotonic()) > 0:
            if self._rate <= 0:
                time.sleep(left)
                continue
            rclpy.spin_once(self._node, timeout_sec=left)
            time.sleep(min(1 / self._rate, left))
        return {"heard": self._heard}

    def last(self) -> dict[str, Any]:
        """Nothing more."""
        return {"heard": self._heard}

    def _hear(self, msg: object) -> None:
        self._heard += 1
