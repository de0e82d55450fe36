"""The detections of each answered frame, as an iterator or for a callback."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from vision_msgs.msg import Detection2DArray

from acs_core.errors import Cancelled
from acs_ros.client.found_objects import FrameObjects
from acs_ros.client.pending_calls import CallbackWaiter
from acs_ros.dds import reliable

NEWEST = 10  # frames that wait in a stream; older ones are dropped


class DetectionStream(Iterator[FrameObjects]):
    """The detections of each answered frame, as an iterator or for a callback; a context manager.

    Frames come in the order of their messages, and the callback gets one at a time, on any executor. Several threads
    may read from one stream; each frame goes to one of them.

    Made by :meth:`GroundingClient.detections`. At most NEWEST frames wait to be taken from the iterator.
    """

    def __init__(
        self,
        node: Node,
        waiter: CallbackWaiter,
        topic: str,
        callback: Callable[[FrameObjects], None] | None,
        timeout: float | None,
        on_close: Callable[[DetectionStream], None],
    ) -> None:
        self._node, self._waiter, self._topic = node, waiter, topic
        self._callback, self._timeout, self._on_close = callback, timeout, on_close
        self._frames: deque[FrameObjects] = deque(maxlen=NEWEST)
        self._closed = False
        self._subscription: Any = node.create_subscription(
            Detection2DArray, topic, self._take, reliable(NEWEST), callback_group=MutuallyExclusiveCallbackGroup()
        )

    @property
    def connected(self) -> bool:
        """Whether a node publishes these detections; frames answered before are missed."""
        return self._node.count_publishers(self._topic) > 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __next__(self) -> FrameObjects:
        """The next frame; see :meth:`take`, with the stream's ``timeout``. StopIteration once the stream is closed."""
        try:
            return self.take(self._timeout)
        except Cancelled:
            raise StopIteration from None

    def take(self, timeout: float | None = None) -> FrameObjects:
        """Wait for the next frame.

        Raises:
            TimeoutError: none came within ``timeout`` seconds; None waits for ever.
            Cancelled: the stream was closed.
            TypeError: the stream has a callback.
            NodeTrouble: ROS was shut down.
        """
        if self._callback is not None:
            raise TypeError("a stream with a callback has no next frame: leave the callback out")
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            if not self._waiter.wait(lambda: self._closed or self._frames, left):
                silent = self._waiter.why_silent()
                raise TimeoutError(f"nothing came on {self._topic} within {timeout or 0:g} s{silent}")
            if self._closed:
                raise Cancelled(f"the stream of {self._topic} was closed")
            with contextlib.suppress(IndexError):  # another thread was faster
                return self._frames.popleft()

    def close(self) -> None:
        """Unsubscribe. A loop over the stream ends."""
        if not self._closed:
            self._closed = True
            self._node.destroy_subscription(self._subscription)
            self._on_close(self)

    def _take(self, message: Detection2DArray) -> None:
        if self._closed:
            return
        frame = FrameObjects.of(message)
        if self._callback is not None:
            self._callback(frame)
        else:
            self._frames.append(frame)
