"""ROS node with its own context, executor and thread, for clients of the grounding node; an action client."""

from __future__ import annotations

import atexit
import threading
from types import TracebackType
from typing import Any, Self

import rclpy
from acs_msgs.action import Ground
from rclpy.action import ActionClient
from rclpy.callback_groups import CallbackGroup
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from acs_ros.dds import SERVICE
from acs_ros.rclpy_fixes import action_name, spin_tolerant

JOIN_S = 5.0
SETTLE_S = 1.0  # a best-effort subscription may miss messages just after it was discovered


class BackgroundNode:
    """ROS node in its own context whose callbacks run on their own thread; a context manager.

    Publishers, subscriptions and clients of ``node`` may be created before or after :meth:`start`.
    """

    def __init__(self, name: str, domain_id: int | None = None) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain_id)
        self.node = Node(name, context=self.context, use_global_arguments=False)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._done = threading.Event()
        self._leaving = threading.Lock()
        self._thread = threading.Thread(target=self._spin, name=name, daemon=True)
        # A thread that is in DDS when Python ends makes the process abort.
        atexit.register(self.close)

    def start(self) -> Self:
        """Start executing callbacks."""
        self._thread.start()
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the callbacks and leave DDS. Called when Python ends, if it was not called before.

        In a callback of the node it returns at once, and the node's thread leaves DDS after that callback.
        """
        self._done.set()
        if threading.current_thread() is self._thread:
            return
        if self._thread.is_alive():
            self._thread.join(JOIN_S)
        self._leave()

    def _spin(self) -> None:
        spin_tolerant(self._executor, self._done.is_set)
        if self._done.is_set():
            self._leave()

    def _leave(self) -> None:
        with self._leaving:  # the steps may be repeated, but not on two threads at once
            self._executor.shutdown(timeout_sec=1)
            self.node.destroy_node()
            rclpy.try_shutdown(context=self.context)
            atexit.unregister(self.close)


class _LockedActionClient(ActionClient):
    """An action client whose lock is there from the start, and may be taken again by the thread that holds it.

    rclpy 9.1.2 makes ``_lock`` after it added the client to its node, whose executor may already need it. And it
    creates the future of a goal twice, the second time after it released the lock: an acceptance that arrived in
    between was lost with the first (ros2/rclpy#1123).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._goal_lock = threading.RLock()
        super().__init__(*args, **kwargs)

    @property
    def _lock(self) -> Any:
        return self._goal_lock

    @_lock.setter
    def _lock(self, lock: Any) -> None:
        """Ignore the lock that rclpy assigns."""


class GoalClient:
    """Client of the action ~/ground whose goals may be sent on one thread while callbacks run on another.

    Args:
        node: The node that the client belongs to.
        target: Full name of the grounding node.
        callback_group: Group of the client's callbacks; None for the node's default group.

    Attributes:
        name: Full name of the action.
    """

    def __init__(self, node: Node, target: str, callback_group: CallbackGroup | None = None) -> None:
        self.name = f"{target}/ground"
        self._client: Any = _LockedActionClient(
            node,
            Ground,
            action_name(node, self.name),
            callback_group=callback_group,
            goal_service_qos_profile=SERVICE,
            result_service_qos_profile=SERVICE,
            cancel_service_qos_profile=SERVICE,
        )
        self._lock = self._client._lock

    def server_is_ready(self) -> bool:
        """Whether the action server has been discovered."""
        return bool(self._client.server_is_ready())

    def send(self, goal: Ground.Goal, **options: Any) -> Any:
        """Send ``goal``. Returns the future of the goal handle; ``options`` as for ``ActionClient.send_goal_async``."""
        with self._lock:
            return self._client.send_goal_async(goal, **options)

    def destroy(self) -> None:
        """Remove the client from its node."""
        self._client.destroy()
