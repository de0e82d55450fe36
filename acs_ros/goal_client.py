"""A client of ~/ground whose answers are not lost, for those who ask from one thread and hear on another."""

from __future__ import annotations

import threading
from typing import Any

from acs_msgs.action import Ground
from rclpy.action import ActionClient
from rclpy.node import Node

from acs_ros.qos import SERVICE


class GoalClient:
    """Goals for the grounding node ``target``. Make it before an executor knows ``node``: rclpy adds an action client
    to its node before the client is complete."""

    def __init__(self, node: Node, target: str) -> None:
        client: Any = ActionClient(
            node,
            Ground,
            f"{target}/ground",
            goal_service_qos_profile=SERVICE,
            result_service_qos_profile=SERVICE,
            cancel_service_qos_profile=SERVICE,
        )
        # rclpy 9.1.2 makes a goal's future twice, the second after it let go of its lock: an acceptance that came in
        # between was lost with the first. Held here, the lock keeps it waiting.
        self._lock = client._lock = threading.RLock()
        self._client = client

    def server_is_ready(self) -> bool:
        """Whether the action is there."""
        return bool(self._client.server_is_ready())

    def send(self, goal: Ground.Goal, **options: Any) -> Any:
        """The future of the goal's handle; ``options`` are those of ``ActionClient.send_goal_async``."""
        with self._lock:
            return self._client.send_goal_async(goal, **options)

    def destroy(self) -> None:
        """Take it off its node."""
        self._client.destroy()
