"""Calls of a node that wait for their response: to be waited for, or awaited in a callback."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

from acs_msgs.action import Ground
from action_msgs.msg import GoalStatus
from rclpy.exceptions import InvalidHandle
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future

from acs_core.errors import Cancelled
from acs_ros.client.background_node import GoalClient
from acs_ros.client.found_objects import GroundReply
from acs_ros.errors import NodeTrouble
from acs_ros.rclpy_fixes import is_gone

T = TypeVar("T")
STEP_S = 0.05  # longest time between two looks at a condition
RETRY_S = 2.0  # of a service that is called again
ABSENT_S = 10.0  # seconds after which a call of a node that is not discovered, or no longer, ends
NOTICE_S = 5.0  # seconds of waiting for a node after which the log says so
IDLE_S = 1.0  # seconds after which an executor that has run nothing is taken for one that nobody spins
OnStage = Callable[[str, float], None]


class CallbackWaiter:
    """Waits for what the callbacks of ``node`` bring.

    If an executor has the node, its owner executes the callbacks. If none has it, they are executed here, on the
    waiting thread, those of the node's other subscriptions and timers included.

    Args:
        node: The node.
        closed: The message of the error that is raised after :meth:`close`.
    """

    def __init__(self, node: Node, closed: str) -> None:
        self._node, self._closed_message = node, closed
        self._closed = False
        self._spinning = threading.Lock()
        self._executor: SingleThreadedExecutor | None = None

    def wait(self, done: Callable[[], Any], timeout: float | None, notice: str = "") -> bool:
        """Wait until ``done()`` is true. Returns False when ``timeout`` seconds pass before; None: wait for ever.

        A ``notice`` is logged once, as a warning of the node, if the wait takes longer than NOTICE_S.

        Raises:
            RuntimeError: this is the thread that would have to execute the callbacks.
            NodeTrouble: ROS was shut down, or this waiter was closed.
        """
        if not self._closed:
            self.check_thread()
        began = time.monotonic()
        deadline = None if timeout is None else began + timeout
        while not self._is_true(done):
            if notice and time.monotonic() - began >= NOTICE_S:
                self._node.get_logger().warning(notice)
                notice = ""
            left = STEP_S if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return False
            if not self._node.context.ok():
                raise NodeTrouble("ROS was shut down while a call waited for its response")
            self._step(min(STEP_S, left))
        return True

    def _is_true(self, done: Callable[[], Any]) -> bool:
        try:
            if done():
                return True
        except (InvalidHandle, RuntimeError):  # RuntimeError: rclpy's RCLError
            if not self._closed and self._node.context.ok():
                raise
        if self._closed:
            raise NodeTrouble(self._closed_message)
        return False

    def check_thread(self) -> None:
        """Check that this thread may wait.

        Raises:
            RuntimeError: it is the one that would have to execute the callbacks.
        """
        executor = self._attended_by()
        if executor is not None and _runs_here(executor):
            raise RuntimeError(
                "a call in a callback cannot wait for a response that the same executor must receive: await it "
                "(await client.ground_async(...) in an async callback), or give the executor more threads "
                "(MultiThreadedExecutor)"
            )

    def why_silent(self) -> str:
        """A hint for the message of a call without a response: that nobody executes callbacks; or an empty string."""
        executor = self._attended_by()
        if executor is None or executor is self._executor:
            return ""
        ran = threading.Event()
        executor.create_task(ran.set)
        if ran.wait(IDLE_S):
            return ""
        name = self._node.get_fully_qualified_name()
        return f"; the executor of {name} executes no callbacks: spin it on another thread, or with more threads"

    def _attended_by(self) -> Executor | None:
        """The executor that has the node; rclpy leaves ``node.executor`` set after a node was removed from it."""
        executor = self._node.executor
        return executor if executor is not None and self._node in executor.get_nodes() else None

    def _step(self, seconds: float) -> None:
        executor = self._attended_by()
        if executor is not None and executor is not self._executor:
            time.sleep(min(seconds, 0.005))
        elif self._spinning.acquire(timeout=seconds):
            try:
                if not self._closed:
                    self._spin(seconds)
            finally:
                self._spinning.release()
                if self._closed:
                    self._free()

    def _spin(self, seconds: float) -> None:
        if self._executor is None:
            self._executor = SingleThreadedExecutor(context=self._node.context)
        self._executor.add_node(self._node)
        try:
            with contextlib.suppress(ExternalShutdownException):  # wait() reports it
                self._executor.spin_once(timeout_sec=seconds)
        except Exception as error:
            if not is_gone(error):  # removed by closing, or by the user
                raise
        finally:
            self._executor.remove_node(self._node)

    def close(self) -> None:
        """End the calls that wait, and free the executor if one was made; may be called in a callback."""
        self._closed = True
        self._free()

    def _free(self) -> None:
        # If a thread executes callbacks, it may be this one; it frees the executor when it is done.
        if self._spinning.acquire(blocking=False):
            try:
                if self._executor is not None:
                    self._executor.shutdown(timeout_sec=1)
                    self._executor = None
            finally:
                self._spinning.release()


def _runs_here(executor: Executor) -> bool:
    """Whether the caller is called by ``executor`` on the thread that spins it."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_locals.get("self") is executor:
            return True
    return False


class PendingCall(ABC, Generic[T]):
    """A call without its response yet; it can be waited for (:meth:`result`) or awaited.

    Args:
        waiter: Waits for the response.
        what: The call, for error messages: "~/pause".
    """

    def __init__(self, waiter: CallbackWaiter, what: str) -> None:
        self._waiter, self._what = waiter, what
        self._lock = threading.Lock()
        self._ended: Future[None] = Future()
        self._ending = False
        self._absent_since: float | None = None  # the first of the latest looks that did not find the node
        self._value: T | None = None
        self._error: Exception | None = None

    def __await__(self) -> Generator[Any, None, T]:
        yield from self._ended.__await__()
        return self._outcome()

    @property
    def done(self) -> bool:
        """Whether the response, or an error, is there."""
        return bool(self._ended.done())

    def add_done_callback(self, callback: Callable[[PendingCall[T]], None]) -> None:
        """Call ``callback(self)`` when the response or an error is there; at once if it is already."""
        self._ended.add_done_callback(lambda _: callback(self))

    def result(self, timeout: float | None = None) -> T:
        """Wait for the response.

        Raises:
            TimeoutError: it did not come within ``timeout`` seconds; the call goes on.
            RuntimeError: called in a callback of the only thread that could receive the response: await it there.
            Cancelled: the client was closed.
            NodeTrouble: the node is not there, or no longer, for ABSENT_S seconds; ROS was shut down.
            AcsError: the node refused the call; each method says which errors it raises.
        """
        if not self._waiter.wait(lambda: self.done, timeout):
            silent = self._waiter.why_silent()
            raise TimeoutError(f"{self._what} did not answer within {timeout or 0:g} s{silent}")
        return self._outcome()

    def look(self) -> None:
        """End the call if its node has not been there for ABSENT_S seconds; called again and again until it is done."""
        now = time.monotonic()
        if self._is_ready():
            self._absent_since = None
        elif self._absent_since is None:
            self._absent_since = now
        elif now - self._absent_since > ABSENT_S:
            self.end(NodeTrouble(f"{self._what} was not there for {ABSENT_S:g} s: is the node running?"))

    def end(self, error: Exception) -> None:
        """End the call with ``error``, unless it is done."""
        self._end(error=error)

    @abstractmethod
    def _is_ready(self) -> bool:
        """Whether the node that answers is there."""

    def _outcome(self) -> T:
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value] # set before the call is done

    def _end(self, value: T | None = None, error: Exception | None = None) -> None:
        with self._lock:
            if self._ending:
                return
            self._ending = True
        self._value, self._error = value, error
        self._ended.set_result(None)  # without the lock: calls the callbacks


class ServiceCall(PendingCall[T]):
    """A call of a service that may be repeated without harm; sent as soon as the service is discovered.

    The response of the first call is lost where the node has discovered the client's requests before it discovered
    where to send responses; :meth:`look` therefore repeats the call every RETRY_S seconds.

    Args:
        waiter: Waits for the response.
        client: The rclpy client.
        request: The request.
        convert: Makes the value of the response; raises an AcsError if the node refused.
    """

    def __init__(self, waiter: CallbackWaiter, client: Any, request: Any, convert: Callable[[Any], T]) -> None:
        super().__init__(waiter, str(client.srv_name))
        self._client, self._request, self._convert = client, request, convert
        self._sent: Any = None
        self._sent_at = 0.0
        self.look()

    def look(self) -> None:
        """Send the request if that is due; end the call if the service is not there, see :meth:`PendingCall.look`."""
        super().look()
        now = time.monotonic()
        if not self.done and self._is_ready() and (self._sent is None or now - self._sent_at >= RETRY_S):
            self._forget()
            self._sent, self._sent_at = self._client.call_async(self._request), now
            self._sent.add_done_callback(self._on_response)

    def end(self, error: Exception) -> None:
        """End the call with ``error``, unless it is done; a response that comes later is ignored."""
        super().end(error)
        self._forget()

    def _forget(self) -> None:
        if self._sent is not None:
            self._client.remove_pending_request(self._sent)

    def _is_ready(self) -> bool:
        return bool(self._client.service_is_ready())

    def _on_response(self, sent: Any) -> None:
        try:
            self._end(self._convert(sent.result()))
        except Exception as error:
            self._end(error=error)


class GroundingTask(PendingCall[GroundReply]):
    """A goal of ~/ground that was sent.

    Args:
        waiter: Waits for the result.
        client: Sends the goal.
        goal: The goal.
        on_stage: Called with the name and the seconds since acceptance of each stage that begins, on the thread that
            executes the node's callbacks.

    Attributes:
        stage: The last stage that was reported: "waiting for an image", "queued", "prompt", ...; empty before.
    """

    def __init__(
        self, waiter: CallbackWaiter, client: GoalClient, goal: Ground.Goal, on_stage: OnStage | None = None
    ) -> None:
        super().__init__(waiter, client.name)
        self.stage = ""
        self._client, self._on_stage = client, on_stage
        self._handle: Any = None
        self._cancelled = False
        self._cancelling: Any = None  # future of the response to the cancellation
        client.send(goal, feedback_callback=self._on_feedback).add_done_callback(self._on_accepted)

    def cancel(self, timeout: float | None = 0.0) -> bool:
        """Cancel the goal. Returns whether it has ended; waits for that up to ``timeout`` seconds.

        :meth:`result` then raises :class:`~acs_core.errors.Cancelled`, unless the result was there first.
        """
        with self._lock:
            self._cancelled, handle = True, self._handle
        if handle is not None and not self.done:
            self._cancelling = handle.cancel_goal_async()
        return self.done or bool(timeout != 0 and self._waiter.wait(lambda: self.done, timeout))

    @property
    def cancel_arrived(self) -> bool:
        """Whether the goal has ended, or the node has received the cancellation."""
        return self.done or (self._cancelling is not None and bool(self._cancelling.done()))

    def _is_ready(self) -> bool:
        return self._client.server_is_ready()

    def _on_feedback(self, message: Any) -> None:
        self.stage = message.feedback.stage
        if self._on_stage is not None:
            self._on_stage(message.feedback.stage, message.feedback.elapsed)

    def _on_accepted(self, sent: Any) -> None:
        try:
            handle = sent.result()
            if not handle.accepted:
                raise NodeTrouble(f"{self._what} did not accept the goal")
            with self._lock:
                self._handle, cancelled = handle, self._cancelled
            handle.get_result_async().add_done_callback(self._on_result)
            if cancelled:
                self._cancelling = handle.cancel_goal_async()
        except Exception as error:
            self._end(error=error)

    def _on_result(self, sent: Any) -> None:
        try:
            response = sent.result()
            if response.status == GoalStatus.STATUS_SUCCEEDED:
                self._end(GroundReply.of(response.result))
            elif response.status == GoalStatus.STATUS_CANCELED:
                self._end(error=Cancelled(f"the goal of {self._what} was cancelled"))
            else:
                self._end(error=NodeTrouble(response.result.message or f"{self._what} aborted the goal"))
        except Exception as error:
            self._end(error=error)
