"""A ROS node of its own beside the grounding node: context, executor and thread in one, for those who talk to it."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from acs_ros.spinning import spin

JOIN_S = 5.0
SETTLE_S = 1.0  # a node that hears best effort may still miss what is sent in the moment it is found


class Peer:
    """A node in a context of its own, whose callbacks run on a thread of its own; a context manager.

    Make publishers, subscriptions and clients of ``node`` before or after :meth:`start`.
    """

    def __init__(self, name: str, domain_id: int | None = None) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain_id)
        self.node = Node(name, context=self.context, use_global_arguments=False)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._spin, name=name, daemon=True)

    def start(self) -> Self:
        """Let callbacks run."""
        self._thread.start()
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the callbacks and leave DDS."""
        self._done.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_S)
        self._executor.shutdown(timeout_sec=1)
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)

    def _spin(self) -> None:
        spin(self._executor, self._done.is_set)
