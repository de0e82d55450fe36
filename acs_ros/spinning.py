"""An executor loop that survives entities being destroyed while it waits on them."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.exceptions import InvalidHandle
from rclpy.executors import Executor

PERIOD_S = 0.1  # how often ``done`` is asked when nothing happens


def spin(executor: Executor, done: Callable[[], bool] = lambda: False) -> None:
    """Execute callbacks until ``done`` or until the context is shut down.

    A deactivating node destroys its image subscription on one thread while another may be about to take a frame or a
    QoS event from it. rclpy 9 then raises InvalidHandle out of ``Executor.spin``, which would end the process for
    what is nothing but a message that nobody wants any more.

    Raises:
        Exception: what a callback raised.
    """
    while executor.context.ok() and not done():
        try:
            executor.spin_once(timeout_sec=PERIOD_S)
        except InvalidHandle:
            continue
