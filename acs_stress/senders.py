"""Cameras and people who send faster than a node can take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header, String

from acs_ros.bags import DEMO_BAG, read_bag
from acs_ros.image_conversion import fill_image
from acs_ros.qos import sensor

SETTLE_S = 0.3  # between a flood and what is to stay: what DDS still holds must not push that out
UNUSABLE = "x" * 201  # a phrase longer than any that can be asked
QUERIES_WAIT = 10  # in the sender


def paced(rate: float, seconds: float, catch_up: bool) -> Iterator[int]:
    """Counts ``rate`` times a second for ``seconds``. A turn that is missed is left out, as a camera does, or made up
    for at once with ``catch_up``."""
    began, turn = time.monotonic(), 0
    while True:
        now = time.monotonic() - began
        if not catch_up:
            turn = max(turn, int(now * rate))
        due = turn / rate
        if max(now, due) >= seconds:
            return
        if due > now:
            time.sleep(due - now)
        yield turn
        turn += 1


class CameraSender:
    """A camera on ``topic``: ``size`` (width, height), ``hz`` frames a second for ``seconds``, and one more at last."""

    def __init__(self, node: Node, topic: str, size: tuple[int, int], hz: float, seconds: float) -> None:
        self._hz, self._seconds = hz, seconds
        picture = next(iter(read_bag(DEMO_BAG))).image
        picture = cv2.resize(picture, tuple(size), interpolation=cv2.INTER_LINEAR)
        self._msg = fill_image(Image(header=Header(frame_id=topic)), np.ascontiguousarray(picture))
        self._publisher = node.create_publisher(Image, topic, sensor(1))
        self._sent, self._took, self._stamp = 0, 0.0, 0

    def connected(self) -> bool:
        """Whether the node hears the camera."""
        return self._publisher.get_subscription_count() > 0

    def flood(self) -> dict[str, Any]:
        """Film."""
        began = time.monotonic()
        for _ in paced(self._hz, self._seconds, catch_up=False):
            self._send()
        self._took = time.monotonic() - began
        return self._done()

    def last(self) -> dict[str, Any]:
        """The newest frame, which is to be answered."""
        time.sleep(SETTLE_S)
        self._send()
        return self._done()

    def _send(self) -> None:
        self._stamp = time.time_ns()
        self._msg.header.stamp.sec, self._msg.header.stamp.nanosec = divmod(self._stamp, 1_000_000_000)
        self._publisher.publish(self._msg)
        self._sent += 1

    def _done(self) -> dict[str, Any]:
        return {"sent": self._sent, "seconds": self._took, "stamp": self._stamp}


class QuerySender:
    """Somebody who publishes ``rate`` different queries a second on ``topic``, every ``unusable_every``-th of them
    unusable, and ``last_phrase`` at last."""

    def __init__(
        self, node: Node, topic: str, rate: float, seconds: float, unusable_every: int, last_phrase: str
    ) -> None:
        self._rate, self._seconds, self._every, self._last_phrase = rate, seconds, unusable_every, last_phrase
        self._publisher = node.create_publisher(String, topic, QoSProfile(depth=QUERIES_WAIT))
        self._good = self._bad = 0
        self._took = 0.0

    def connected(self) -> bool:
        """Whether the node hears us."""
        return self._publisher.get_subscription_count() > 0

    def flood(self) -> dict[str, Any]:
        """Change our mind."""
        began = time.monotonic()
        for turn in paced(self._rate, self._seconds, catch_up=True):
            self._send(UNUSABLE if turn % self._every == self._every - 1 else f"thing {turn}")
        self._took = time.monotonic() - began
        return self._done()

    def last(self) -> dict[str, Any]:
        """What we want in the end."""
        self._send(self._last_phrase)
        return self._done()

    def _send(self, text: str) -> None:
        self._publisher.publish(String(data=text))
        if text is UNUSABLE:
            self._bad += 1
        else:
            self._good += 1

    def _done(self) -> dict[str, Any]:
        return {"good": self._good, "bad": self._bad, "sent": self._good + self._bad, "seconds": self._took}
