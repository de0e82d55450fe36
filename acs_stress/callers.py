"""Those who ask the node and wait for the answer: clients of its services, and of its action."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from acs_msgs.action import Ground
from acs_msgs.srv import ListQueries, SetQueries
from action_msgs.msg import GoalStatus
from lifecycle_msgs.srv import GetState
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool

from acs_ros.image_conversion import fill_image

PATIENCE_S = 5.0  # after which a call counts as unanswered
TURN_S = 0.05  # between two rounds of calls
PAUSE_EVERY = 20  # rounds: then ~/pause really holds the node, and lets it go on with the next call
ENDINGS = {
    GoalStatus.STATUS_SUCCEEDED: "succeeded",
    GoalStatus.STATUS_ABORTED: "aborted",
    GoalStatus.STATUS_CANCELED: "cancelled",
}


class ServiceCaller:
    """Calls get_state, list_queries, set_queries (with ``phrases``; none: not) and pause of the node ``target``, one
    after the other, for ``seconds``."""

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
        """Whether all services are there, and each has answered once: a server that knows a client, but not yet where
        it listens, loses the answer."""
        if not all(client.service_is_ready() for client in self._clients.values()):
            return False
        for name in self._clients:
            self._call(name, 0)
        met = not self._unanswered
        self._ms, self._unanswered = {name: [] for name in self._clients}, Counter()
        return met

    def flood(self) -> dict[str, Any]:
        """Call."""
        until, turn = time.monotonic() + self._seconds, 0
        while time.monotonic() < until:
            for name in self._clients:
                self._call(name, turn)
            turn += 1
            time.sleep(TURN_S)
        if turn % PAUSE_EVERY == 0:
            self._call("pause", turn)  # the last one held the node
        return self._done()

    def last(self) -> dict[str, Any]:
        """Nothing more."""
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


class GoalAsker:
    """Sends ``count`` goals of ``target``/ground at once: every other with a picture of its own of ``size`` (width,
    height), every tenth cancelled as soon as it is accepted. Waits ``patience`` seconds for all of them to end."""

    def __init__(self, node: Node, target: str, count: int, size: tuple[int, int], patience: float) -> None:
        self._node, self._count, self._patience = node, count, patience
        # Room for all: the ten of ROS's default profile would be pushed out here, before or after the node's part.
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
        self._told: dict[str, Any] = {}

    def connected(self) -> bool:
        """Whether the action is there."""
        rclpy.spin_once(self._node, timeout_sec=0.02)
        return bool(self._client.server_is_ready())

    def flood(self) -> dict[str, Any]:
        """Ask, and hear how it ends."""
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
        self._told = {
            "sent": self._count,
            "accepted": len(handles),
            "ended": len(results),
            "wordless": sum(not words for words in refusals),
            "words": sorted(set(refusals))[:5],
            "seconds": time.monotonic() - began,
            **{name: ends[name] for name in (*ENDINGS.values(), "strange")},
        }
        return self._told

    def last(self) -> dict[str, Any]:
        """Nothing more."""
        return self._told

    def _wait_all(self, futures: list[Any], deadline: float) -> list[Any]:
        while not all(future.done() for future in futures) and time.monotonic() < deadline:
            rclpy.spin_once(self._node, timeout_sec=0.1)
        return [future.result() for future in futures if future.done()]
