"""A user's node with or without an executor, for the tests of the client library."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.node import Node


@contextmanager
def users_node(rig: Any, executor_class: Callable[..., Any] | None = None) -> Iterator[Node]:
    """A node of a user in a context of its own, spun by ``executor_class`` on a thread, or by nobody."""
    context = Context()
    rclpy.init(context=context, domain_id=rig.domain)
    node = Node("user", context=context, use_global_arguments=False)
    executor, thread = None, None
    if executor_class is not None:
        executor = executor_class(context=context)
        executor.add_node(node)
        thread = threading.Thread(target=executor.spin, daemon=True)
        thread.start()
    try:
        yield node
    finally:
        if executor is not None and thread is not None:
            executor.shutdown(timeout_sec=5)
            thread.join(5)
        node.destroy_node()
        rclpy.shutdown(context=context)


def picture() -> np.ndarray:
    """A grey (30, 40, 3) uint8 image."""
    return np.full((30, 40, 3), 90, np.uint8)
