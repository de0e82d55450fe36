"""Plays recorded messages over DDS at the bag's pace, and listens to what a node answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from acs_msgs.msg import CandidateArray
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Detection2DArray

from acs_ros.node_client import NodeTrouble
from acs_ros.peer import SETTLE_S, Peer
from acs_ros.replay.contents import NS, FrameAt
from acs_ros.replay.matching import Heard, Sent

POLL_S = 0.002


class Player:
    """Publishes frames on ``image_topic`` and collects ``NODE/detections`` and ``NODE/candidates``, in a context of its
    own; a context manager."""

    def __init__(self, node: str, image_topic: str, compressed: bool, domain_id: int | None = None) -> None:
        self._peer = Peer("acs_replay", domain_id)
        self._node = self._peer.node
        kind = CompressedImage if compressed else Image
        self.image_topic = image_topic
        frames = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
        answers = QoSProfile(depth=500, reliability=ReliabilityPolicy.RELIABLE)
        self._images = self._node.create_publisher(kind, image_topic, frames)
        self.heard: list[Heard] = []
        self.candidates: list[CandidateArray] = []
        self._outputs = (f"{node}/detections", f"{node}/candidates")
        self._node.create_subscription(Detection2DArray, self._outputs[0], self._on_detections, answers)
        self._node.create_subscription(CandidateArray, self._outputs[1], self.candidates.append, answers)
        self._peer.start()

    def __enter__(self) -> Player:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._peer.close()

    def wait_for_node(self, timeout: float, alive: Callable[[], None] = lambda: None) -> None:
        """Wait until somebody hears the frames, and somebody sends detections.

        Raises:
            NodeTrouble: not within ``timeout`` seconds; says what is missing.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self._images.get_subscription_count() and self._node.count_publishers(self._outputs[0]):
                time.sleep(SETTLE_S)
                return
            alive()
            time.sleep(POLL_S)
        if not self._node.count_publishers(self._outputs[0]):
            raise NodeTrouble(
                f"nobody publishes {self._outputs[0]}: is the node configured and active? --node names another one, "
                "--start-node starts one (and the same ROS_DOMAIN_ID must hold here and there)"
            )
        raise NodeTrouble(
            f"nobody hears images on {self.image_topic}: --publish-to names the topic that the node hears; a node with "
            "the other image_transport hears ~/image or ~/image/compressed, not both"
        )

    def send(self, frame: FrameAt, phrases: tuple[str, ...], data: bytes) -> Sent:
        """Publish a recorded message as it is."""
        at = time.monotonic()
        self._images.publish(data)
        return Sent(frame, phrases, at)

    def _on_detections(self, msg: Any) -> None:
        self.heard.append(Heard(msg, time.monotonic()))


class Pace:
    """When each frame is due: as far apart as they were recorded, ``rate`` times as fast, from the first one on."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._start: tuple[float, int] | None = None

    def restart(self, time_ns: int) -> None:
        """What was recorded at ``time_ns`` is due now, the rest after it."""
        self._start = self._clock(), time_ns

    def left(self, time_ns: int) -> float:
        """Seconds until what was recorded at ``time_ns`` is due; not above 0: now."""
        if self._start is None:
            self._start = self._clock(), time_ns
        began, first = self._start
        return began + (time_ns - first) / NS / self._rate - self._clock()
