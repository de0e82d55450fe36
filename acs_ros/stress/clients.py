"""Clients that load a node: cameras, query publishers, service and action clients, slow subscribers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import rclpy
from acs_msgs.action import Ground
from acs_msgs.msg import CandidateArray
from acs_msgs.srv import ListQueries, SetQueries
from action_msgs.msg import GoalStatus
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import GetState
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header, String
from std_srvs.srv import SetBool
from vision_msgs.msg import Detection2DArray

from acs_ros.bags.bags import DEMO_BAG, read_bag
from acs_ros.conversions.images import fill_image, header_of
from acs_ros.dds import sensor

SETTLE_S = 0.3  # before the final message: messages of the flood that DDS still holds must not push it out
UNUSABLE = "x" * 201  # longer than a phrase may be
QUERIES_WAIT = 10  # queue depth of the publisher
PATIENCE_S = 5.0  # timeout of a call
TURN_S = 0.05  # between two rounds of calls
PAUSE_EVERY = 20  # rounds: in the last of them ~/pause pauses the node, and the next call resumes it
ENDINGS = {
    GoalStatus.STATUS_SUCCEEDED: "succeeded",
    GoalStatus.STATUS_ABORTED: "aborted",
    GoalStatus.STATUS_CANCELED: "cancelled",
}
OUTPUTS = {
    "detections": Detection2DArray,
    "candidates": CandidateArray,
    "debug_image": Image,
    "attention_image": Image,
}
DEPTH = 1000  # queue depth of each subscription


def paced(rate: float, seconds: float, catch_up: bool) -> Iterator[int]:
    """Yield 0, 1, 2, ... at ``rate`` per second for ``seconds``. Missed turns are skipped, as by a camera, or with
    ``catch_up`` yielded at once."""
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


class CameraPublisher:
    """Camera that publishes frames of ``size`` (width, height) on ``topic``, at ``hz`` for ``seconds``, and one final
    frame."""

    def __init__(self, node: Node, topic: str, size: tuple[int, int], hz: float, seconds: float) -> None:
        self._hz, self._seconds = hz, seconds
        picture = next(iter(read_bag(DEMO_BAG))).image
        picture = cv2.resize(picture, tuple(size), interpolation=cv2.INTER_LINEAR)
        self._msg = fill_image(Image(header=Header(frame_id=topic)), np.ascontiguousarray(picture))
        self._publisher = node.create_publisher(Image, topic, sensor(1))
        self._sent, self._took, self._stamp = 0, 0.0, 0

    def connected(self) -> bool:
        """Whether the node has subscribed to the camera."""
        return self._publisher.get_subscription_count() > 0

    def flood(self) -> dict[str, Any]:
        """Publish frames at the camera's rate."""
        began = time.monotonic()
        for _ in paced(self._hz, self._seconds, catch_up=False):
            self._send()
        self._took = time.monotonic() - began
        return self._done()

    def last(self) -> dict[str, Any]:
        """Publish the final frame, which the node must answer."""
        time.sleep(SETTLE_S)
        self._send()
        return self._done()

    def _send(self) -> None:
        self._stamp = time.time_ns()
        self._msg.header = header_of(self._stamp, self._msg.header.frame_id)
        self._publisher.publish(self._msg)
        self._sent += 1

    def _done(self) -> dict[str, Any]:
        return {"sent": self._sent, "seconds": self._took, "stamp": self._stamp}


class QueryPublisher:
    """Publisher of ``rate`` different queries per second on ``topic``; every ``unusable_every``-th is invalid, and
    ``last_phrase`` is the final one."""

    def __init__(
        self, node: Node, topic: str, rate: float, seconds: float, unusable_every: int, last_phrase: str
    ) -> None:
        self._rate, self._seconds, self._every, self._last_phrase = rate, seconds, unusable_every, last_phrase
        self._publisher = node.create_publisher(String, topic, QoSProfile(depth=QUERIES_WAIT))
        self._good = self._bad = 0
        self._took = 0.0

    def connected(self) -> bool:
        """Whether the node has subscribed to the queries."""
        return self._publisher.get_subscription_count() > 0

    def flood(self) -> dict[str, Any]:
        """Publish queries."""
        began = time.monotonic()
        for turn in paced(self._rate, self._seconds, catch_up=True):
            self._send(UNUSABLE if turn % self._every == self._every - 1 else f"thing {turn}")
        self._took = time.monotonic() - began
        return self._done()

    def last(self) -> dict[str, Any]:
        """Publish the final query, which the node must adopt."""
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


class ServiceCaller:
    """Caller of the services get_state, list_queries, set_queries (only with ``phrases``) and pause of the node
    ``target``, in turn for ``seconds``."""

    def __init__(self, node: Node, target: str, seconds: float, phrases: list[str]) -> None:
        self._node, self._seconds = node, seconds
        kinds: dict[str, Any] = {"get_state": GetState, "list_queries": ListQueries, "pause": SetBool}
        if phrases:
            kinds["set_queries"] = SetQueries
        self._clients: dict[str, Any] = {
            name: node.create_client(kind, f"{target}/{name}") for name, kind in kinds.items()
        }
        self._requests: dict[str, Callable[[int], Any]] = {
            "get_state": lambda turn: GetState.Request(),
            "list_queries": lambda turn: ListQueries.Request(),
            "set_queries": lambda turn: SetQueries.Request(phrases=phrases),
            "pause": lambda turn: SetBool.Request(data=turn % PAUSE_EVERY == PAUSE_EVERY - 1),
        }
        self._ms: dict[str, list[float]] = {name: [] for name in self._clients}
        self._unanswered: Counter[str] = Counter()

    def connected(self) -> bool:
        """Whether all services are available and each has answered once: the first answer is lost if the server has not
        discovered the client's reader yet."""
        if not all(client.service_is_ready() for client in self._clients.values()):
            return False
        for name in self._clients:
            self._call(name, 0)
        met = not self._unanswered
        self._ms, self._unanswered = {name: [] for name in self._clients}, Counter()
        return met

    def flood(self) -> dict[str, Any]:
        """Call the services in turn."""
        until, turn = time.monotonic() + self._seconds, 0
        while time.monotonic() < until:
            for name in self._clients:
                self._call(name, turn)
            turn += 1
            time.sleep(TURN_S)
        if turn % PAUSE_EVERY == 0:
            self._call("pause", turn)  # the last call paused the node
        return self._done()

    def last(self) -> dict[str, Any]:
        """Return the counts; there is no final message."""
        return self._done()

    def _call(self, name: str, turn: int) -> None:
        began = time.perf_counter()
        future = self._clients[name].call_async(self._requests[name](turn))
        rclpy.spin_until_future_complete(self._node, future, timeout_sec=PATIENCE_S)
        took = (time.perf_counter() - began) * 1e3
        if future.done():
            self._ms[name].append(took)
        else:
            self._unanswered[name] += 1
            self._clients[name].remove_pending_request(future)

    def _done(self) -> dict[str, Any]:
        return {"ms": self._ms, "unanswered": sum(self._unanswered.values())}


class GoalSender:
    """Sender of ``count`` simultaneous goals to the action ``target``/ground.

    Every second goal has its own image of ``size`` (width, height), and every tenth is cancelled after its acceptance.
    Waits at most ``patience`` seconds for all to end.
    """

    def __init__(self, node: Node, target: str, count: int, size: tuple[int, int], patience: float) -> None:
        self._node, self._count, self._patience = node, count, patience
        # Queues for all goals: with the depth of 10 of ROS's default profile, this client itself would lose some.
        room = QoSProfile(depth=2 * count)
        self._client: Any = ActionClient(
            node,
            Ground,
            f"{target}/ground",
            goal_service_qos_profile=room,
            result_service_qos_profile=room,
            cancel_service_qos_profile=room,
        )
        picture = np.full((size[1], size[0], 3), 128, np.uint8)
        self._picture = fill_image(Image(header=Header(frame_id="own")), picture)
        self._counts: dict[str, Any] = {}

    def connected(self) -> bool:
        """Whether the action server is available."""
        rclpy.spin_once(self._node, timeout_sec=0.02)
        return bool(self._client.server_is_ready())

    def flood(self) -> dict[str, Any]:
        """Send the goals and wait for their results."""
        began = time.monotonic()
        sent = []
        for number in range(self._count):
            goal = Ground.Goal(phrase=f"thing {number}")
            if number % 2:
                goal.image = self._picture
            sent.append(self._client.send_goal_async(goal))
        deadline = began + self._patience
        handles = [handle for handle in self._wait_all(sent, deadline) if handle.accepted]
        cancels = [handle.cancel_goal_async() for handle in handles[::10]]
        results = self._wait_all([handle.get_result_async() for handle in handles], deadline)
        self._wait_all(cancels, deadline)
        ends = Counter(ENDINGS.get(result.status, "strange") for result in results)
        refusals = [result.result.message for result in results if result.status == GoalStatus.STATUS_ABORTED]
        self._counts = {
            "sent": self._count,
            "accepted": len(handles),
            "ended": len(results),
            "wordless": sum(not words for words in refusals),
            "words": sorted(set(refusals))[:5],
            "seconds": time.monotonic() - began,
            **{name: ends[name] for name in (*ENDINGS.values(), "strange")},
        }
        return self._counts

    def last(self) -> dict[str, Any]:
        """Return the counts; there is no final message."""
        return self._counts

    def _wait_all(self, futures: list[Any], deadline: float) -> list[Any]:
        while not all(future.done() for future in futures) and time.monotonic() < deadline:
            rclpy.spin_once(self._node, timeout_sec=0.1)
        return [future.result() for future in futures if future.done()]


class SlowSubscriber:
    """Reliable subscriber to the ``outputs`` below ``prefixes`` (such as "/grounding/cam_1"), which reads ``rate``
    messages per second from all topics together for ``seconds``; with 0, it reads none."""

    def __init__(
        self,
        node: Node,
        prefixes: list[str],
        rate: float,
        seconds: float,
        outputs: Sequence[str] = ("detections", "candidates", "debug_image"),
    ) -> None:
        self._node, self._rate, self._seconds = node, rate, seconds
        self._heard = 0
        qos = QoSProfile(depth=DEPTH)
        for prefix in prefixes:
            for name in outputs:
                node.create_subscription(OUTPUTS[name], f"{prefix}/{name}", self._hear, qos)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._hear, qos)
        self._topics = [f"{prefix}/{name}" for prefix in prefixes for name in outputs]

    def connected(self) -> bool:
        """Whether the node publishes all outputs."""
        return all(self._node.count_publishers(topic) for topic in self._topics)

    def flood(self) -> dict[str, Any]:
        """Read messages at the given rate."""
        until = time.monotonic() + self._seconds
        while (left := until - time.monotonic()) > 0:
            if self._rate <= 0:
                time.sleep(left)
                continue
            rclpy.spin_once(self._node, timeout_sec=left)
            time.sleep(min(1 / self._rate, left))
        return {"heard": self._heard}

    def last(self) -> dict[str, Any]:
        """Return the counts; there is no final message."""
        return {"heard": self._heard}

    def _hear(self, msg: object) -> None:
        self._heard += 1
