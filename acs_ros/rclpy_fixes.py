"""Workarounds for rclpy 7 (Jazzy) and 9 (Kilted): logs, spinning, an executor, transitions, actions, /clock, freezes.

Each docstring names the behaviour that makes it necessary, with the upstream issue where there is one.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import threading
import time
import traceback
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.action import ActionServer
from rclpy.context import Context
from rclpy.exceptions import InvalidHandle
from rclpy.executors import Executor, MultiThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNodeMixin, LifecycleState, TransitionCallbackReturn
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.service import Service
from rosgraph_msgs.msg import Clock

from acs_core.plain_text import log_text
from acs_ros.errors import describe

LOG_PERIOD_S = 5.0  # seconds between two lines of one kind of a ThrottledLogger
PERIOD_S = 0.1  # seconds after which spin_tolerant calls ``done`` again when nothing happens
PAUSE_S = 0.01  # seconds after an error in spin_tolerant, or one that recurs at once would occupy the processor
SECOND_NS = 10**9
STDERR = 2  # a file descriptor, as sys.stderr may need Python
SIGNS = 4  # times per timeout that a FreezeWatch is armed anew
LAST_WORDS = "Timeout ("  # how the report of faulthandler begins
Failed = Callable[[str, Exception], None]
Work = Callable[[], Coroutine[None, None, None]]
Transition = Callable[[Any, LifecycleState], TransitionCallbackReturn]


class ThrottledLogger:
    """A logger that writes at most one line of each kind per LOG_PERIOD_S; safe to use from any thread.

    ``throttle_duration_sec`` of rclpy inspects the whole call stack, with its source lines, before it decides that
    nothing is written. That takes milliseconds per call, in which no other thread of the node runs
    (compare ros2/rclpy#775).

    The argument ``kind`` of the methods has few different values; of the lines of one kind any may be left out.
    """

    def __init__(self, logger: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger, self._clock = logger, clock
        self._lock = threading.Lock()
        self._written: dict[str, float] = {}

    def info(self, kind: str, text: Callable[[], str] | str) -> bool:
        """Log an event. ``text`` may be a function, which is called only if the line is written. Returns whether it
        was."""
        due = self._is_due(kind)
        if due:
            self._logger.info(text if isinstance(text, str) else text())
        return due

    def warning(self, kind: str, text: Callable[[], str] | str) -> bool:
        """Log a problem. ``text`` may be a function, which is called only if the line is written. Returns whether it
        was."""
        due = self._is_due(kind)
        if due:
            self._logger.warning(text if isinstance(text, str) else text())
        return due

    def _is_due(self, kind: str) -> bool:
        now = self._clock()
        with self._lock:
            last = self._written.get(kind)
            if last is not None and now - last < LOG_PERIOD_S:
                return False
            self._written[kind] = now
            return True


class PlainLogger:
    """An rclpy logger whose texts pass through :func:`acs_core.plain_text.log_text` first.

    rclpy writes control characters as they are, so that text from the network could steer a terminal or look like a log
    line of its own. There is one method per severity, because rclpy identifies a call by its source line and refuses a
    second severity from the same line.
    """

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def debug(self, text: str) -> bool:
        """Log a detail for developers."""
        return bool(self._logger.debug(log_text(text)))

    def info(self, text: str) -> bool:
        """Log an event."""
        return bool(self._logger.info(log_text(text)))

    def warning(self, text: str) -> bool:
        """Log a problem with which the node goes on."""
        return bool(self._logger.warning(log_text(text)))

    def error(self, text: str) -> bool:
        """Log a failure."""
        return bool(self._logger.error(log_text(text)))

    def fatal(self, text: str) -> bool:
        """Log a failure that ends the node."""
        return bool(self._logger.fatal(log_text(text)))

    warn = warning

    def __getattr__(self, name: str) -> Any:
        return getattr(self._logger, name)


def _raise(error: Exception) -> None:
    raise error


def is_gone(error: Exception) -> bool:
    """Whether ``error`` says that an entity was cancelled or destroyed on another thread before its turn came.

    rclpy raises InvalidHandle then; that of Jazzy also RCLError for a timer.
    """
    cancelled = isinstance(error, rclpy_implementation.RCLError) and "timer is canceled" in str(error)
    return cancelled or isinstance(error, InvalidHandle)


def spin_tolerant(
    executor: Executor, done: Callable[[], bool] = lambda: False, failed: Callable[[Exception], None] = _raise
) -> None:
    """Execute callbacks until ``done`` or until the context is shut down.

    A deactivating node destroys its image subscription on one thread while another may be about to take a frame or a
    QoS event from it. rclpy then raises InvalidHandle out of ``Executor.spin``, which would end the process
    (ros2/rclpy#1206, ros2/rclpy#1355). Here it is ignored, and so is what rclpy of Jazzy raises about a timer that was
    cancelled on another thread.

    Args:
        executor: Executes the callbacks.
        done: Called between two callbacks, at least every PERIOD_S.
        failed: Called with any other exception of a callback or of the waiting; by default the exception is raised.
    """
    while executor.context.ok() and not done():
        try:
            executor.spin_once(timeout_sec=PERIOD_S)
        except Exception as error:
            if is_gone(error):
                continue
            failed(error)
            time.sleep(PAUSE_S)


class FaultTolerantExecutor(MultiThreadedExecutor):
    """A ``MultiThreadedExecutor`` that goes on after an exception in any callback.

    rclpy raises the exception out of ``spin`` (since ros2/rclpy#1073), which ends the process, and its own callbacks
    raise on messages that anybody may send: a ``set_parameters`` request with an unknown type, a ``/clock`` with
    negative seconds. An exception while a message is taken also leaves the entity and its callback group marked as
    taken for good.

    Args:
        num_threads: Threads that run callbacks.
        failed: Called with the name of the subscription, service, timer, ... and the exception; on any thread.
        context: The context; None is the default one.

    A service whose callback raises answers with a failed response (:func:`failed_response`). An entity that was
    destroyed just before its callback is ignored.
    """

    def __init__(self, num_threads: int, failed: Failed, *, context: Context | None = None) -> None:
        super().__init__(num_threads, context=context)
        self._failed = _never_raising(failed)

    def shutdown(self, timeout_sec: float | None = None, **options: Any) -> bool:
        """Like :meth:`rclpy.executors.MultiThreadedExecutor.shutdown`; returns only after the threads have ended.

        rclpy 9 waits for them, that of Jazzy does not, and a transition that still ran then used the parts of a node
        that its owner had destroyed.
        """
        finished = bool(super().shutdown(timeout_sec, **options))
        self._executor.shutdown(wait=options.get("wait_for_threads", True))
        return finished

    def _make_handler(self, entity: Any, node: Any, take_from_wait_list: Callable[[Any], Work | None]) -> Any:
        # Every subscription, service, client, timer, guard condition and waitable (actions, QoS events) passes here.
        if isinstance(entity, Service) and not isinstance(entity.callback, _AnsweringCallback):
            entity.callback = _AnsweringCallback(entity.callback, entity.service_name, self._failed)
        return super()._make_handler(entity, node, lambda taken: self._guarded(taken, take_from_wait_list))

    def _guarded(self, entity: Any, take: Callable[[Any], Work | None]) -> Work | None:
        """The callback of ``entity`` with its message, taken now; None if the message cannot be taken."""
        try:
            work = take(entity)
        except Exception as error:
            if not is_gone(error):
                self._failed(name_of(entity), error)
            return None
        if work is None:
            return None
        taken = work

        async def run() -> None:
            try:
                await taken()
            except Exception as error:
                if not is_gone(error):
                    self._failed(name_of(entity), error)

        return run


def _never_raising(failed: Failed) -> Failed:
    """``failed`` with its own exceptions logged: raised in a handler, they would leave its entity marked as taken."""

    def report(name: str, error: Exception) -> None:
        try:
            failed(name, error)
        except Exception as second:
            with contextlib.suppress(Exception):  # there is no other way to report it
                get_logger("executor").error(f"{name}: {describe(error)}; reporting that failed: {describe(second)}")

    return report


class _AnsweringCallback:
    """A service's callback that returns a failed response where ``callback`` raises."""

    def __init__(self, callback: Callable[[Any, Any], Any], name: str, failed: Failed) -> None:
        self._callback, self._name, self._failed = callback, name, failed

    def __call__(self, request: Any, response: Any) -> Any:
        try:
            return self._callback(request, response)
        except Exception as error:
            self._failed(self._name, error)
            return failed_response(request, response, describe(error))


def failed_response(request: Any, response: Any, reason: str) -> Any:
    """``response`` with the failure filled in: ``success`` is false and ``message`` holds the reason, or the
    SetParametersResult of each parameter that was not set does. Responses without these fields stay as they are."""
    fields = response.get_fields_and_field_types()
    refused = SetParametersResult(successful=False, reason=reason)
    if fields.get("success") == "boolean":
        response.success = False
    if fields.get("message") == "string":
        response.message = reason
    if fields.get("result") == "rcl_interfaces/SetParametersResult":
        response.result = refused
    if fields.get("results") == "sequence<rcl_interfaces/SetParametersResult>":
        # Those before the one that raised are set.
        missing = len(request.parameters) - len(response.results)
        response.results = [*response.results, *[refused] * missing]
    return response


def name_of(entity: Any) -> str:
    """The topic or service name of an entity, or its class name."""
    for attribute in ("topic_name", "service_name"):
        name = getattr(entity, attribute, None)
        if isinstance(name, str):
            return name
    return type(entity).__name__


class RefusingLifecycleMixin(LifecycleNodeMixin):
    """A ``LifecycleNodeMixin`` that answers with ERROR where a transition cannot start in its state, or cannot end
    because the context is being shut down.

    rclpy 9 does so by itself; Jazzy's rclpy 7 raises RCLError out of the service ``change_state``.
    """

    def _LifecycleNodeMixin__change_state(self, transition_id: int) -> TransitionCallbackReturn:
        # The name that Python gives the private method: there is no public one that every transition passes.
        inherited: Any = super()
        try:
            return TransitionCallbackReturn(inherited._LifecycleNodeMixin__change_state(transition_id))
        except rclpy_implementation.RCLError as error:
            get_logger("lifecycle").error(f"transition {transition_id} failed: {log_text(str(error))}")
            return TransitionCallbackReturn.ERROR


# Kilted brought remapping of actions (ros2/rcl#1170) and their introspection, which Python can see (ros2/rclpy#1413).
REMAPS_ACTIONS = hasattr(ActionServer, "configure_introspection")


def action_name(node: Node, name: str) -> str:
    """Name with which to create a server or client of the action ``name`` in ``node``, so that remapping rules apply.

    rcl of Kilted remaps an action by its name, as it remaps topics; that of Jazzy only expands it (ros2/ros2#1312). The
    name is remapped here then. Elsewhere it is returned as it is: rules would be applied to it twice.
    """
    return name if REMAPS_ACTIONS else str(node.resolve_topic_name(name))


def log_transition_errors(transition: Transition) -> Transition:
    """Decorator of a transition that logs its exception, which rclpy turns into ERROR silently (ros2/rclpy#1673)."""

    @functools.wraps(transition)
    def guarded(self: Any, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(self, state)
        except Exception as error:
            self.get_logger().error(f"{transition.__name__} failed: {''.join(traceback.format_exception(error))}")
            return TransitionCallbackReturn.ERROR

    return guarded


def checked_clock(callback: Callable[[Clock], None]) -> Callable[[Clock], None]:
    """``callback`` for messages on /clock, which anybody may publish, with valid times only.

    The returned function raises ValueError for negative seconds, which rclpy cannot represent, and for nanoseconds of a
    second or more: the sum may exceed the range of a stamp, and every stamp of the node would be wrong.
    """

    def take(msg: Clock) -> None:
        if msg.clock.sec < 0 or msg.clock.nanosec >= SECOND_NS:
            raise ValueError(
                f"/clock says {msg.clock.sec} s and {msg.clock.nanosec} ns: seconds must not be negative and "
                f"nanoseconds must be below {SECOND_NS}"
            )
        callback(msg)

    return take


class FreezeWatch:
    """While entered, ends the process with exit code 1 when no Python code runs in it for ``timeout`` seconds.

    rclpy publishes without letting other Python threads run. If publishing never returns, as in Fast DDS when a
    subscriber was killed while it took a message (eProsima/Fast-DDS#6485), the whole process stands still: no callback,
    no signal, no log line. Only a thread that needs no Python can end it, and the one of faulthandler does, so that a
    supervisor can start the process again.

    It writes "Timeout (0:00:30)!" and the stack of each thread to stderr. A ``timeout`` of 0 switches the watch off.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sign, name="freeze-watch", daemon=True)

    def __enter__(self) -> FreezeWatch:
        if self._timeout > 0:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if self._timeout > 0:
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()

    def _sign(self) -> None:
        while True:
            faulthandler.dump_traceback_later(self._timeout, exit=True, file=STDERR)
            if self._done.wait(self._timeout / SIGNS):
                return
