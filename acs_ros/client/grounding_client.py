"""Client of the grounding node for programs: asks for objects and receives detections."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar

from acs_msgs.action import Ground
from acs_msgs.srv import ListQueries, SetQueries
from lifecycle_msgs.srv import GetState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidHandle
from rclpy.node import Node
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from acs_core.errors import Cancelled, PhraseError
from acs_core.plain_text import shorten
from acs_ros.client.background_node import BackgroundNode, GoalClient
from acs_ros.client.detection_stream import DetectionStream
from acs_ros.client.found_objects import FrameObjects, GroundReply
from acs_ros.client.goal_message import ImageSource, make_goal
from acs_ros.client.pending_calls import CallbackWaiter, GroundingTask, OnStage, PendingCall, ServiceCall
from acs_ros.dds import reliable
from acs_ros.errors import NodeTrouble

T = TypeVar("T")
NODE_NAME = re.compile(r"(/[A-Za-z_][A-Za-z0-9_]*)+")
GROUND_S = 60.0  # default timeout of ground()
SERVICE_S = 10.0  # default timeout of the services
CANCEL_S = 5.0  # how long ground() waits for the end of a goal that it cancels
CLOSE_S = 1.0  # how long close() waits until the node has received the cancellation of goals
POLL_S = 0.2  # between two looks at the node's state, and at the open calls

SERVICES: dict[str, Any] = {
    "set_queries": SetQueries,
    "list_queries": ListQueries,
    "clear_queries": Trigger,
    "pause": SetBool,
    "get_state": GetState,
}


class GroundingClient:
    """Client of a grounding node; a context manager.

    By itself, on a thread of its own, without ``rclpy.init``::

        with GroundingClient() as client:
            client.wait_until_active()
            reply = client.ground("cup")
            print(reply.best or reply.reason)

    With ``node`` it uses that node: its executor runs the callbacks, on its threads. Calls then wait for that executor;
    as long as no executor has the node, they execute its callbacks themselves. In a callback of an executor with one
    thread no call can wait: there, await ``ground_async`` and ``set_queries_async`` in an ``async def`` callback.

    Methods may be called on any thread. A timeout is in seconds; None waits for ever. Every method raises
    :class:`~acs_ros.errors.NodeTrouble` after :meth:`close`, and if ROS is shut down while it waits.

    Args:
        target: Full name of the grounding node.
        node: The node to use; None for one of its own.
        name: Name of its own node.
        domain_id: DDS domain of its own node; None for ROS_DOMAIN_ID.

    Raises:
        ValueError: ``target`` is no name of a node.
    """

    def __init__(
        self,
        target: str = "/grounding",
        node: Node | None = None,
        *,
        name: str = "grounding_client",
        domain_id: int | None = None,
    ) -> None:
        self._target = target if target.startswith("/") else f"/{target}"
        if not NODE_NAME.fullmatch(self._target):
            raise ValueError(f"target must be the full name of a node, such as /grounding, got {shorten(target)}")
        self._background: BackgroundNode | None = None
        if node is None:
            self._background = BackgroundNode(name, domain_id)
            node = self._background.node
        self._node = node
        self._closed_message = f"the client of {self._target} is closed"
        self._waiter = CallbackWaiter(node, self._closed_message)
        self._group = ReentrantCallbackGroup()  # a callback that waits for a response must not keep it from coming
        self._goals = GoalClient(node, self._target, self._group)
        # Made when they are needed: with SROS 2, a program needs no permission for services that it does not call.
        self._clients: dict[str, Any] = {}
        self._lock = threading.RLock()  # a call that ends at once calls back on the thread that makes it
        self._closed = False
        self._query: Any = None  # publisher, made when it is needed
        self._timer: Any = None  # looks at the open calls; made with the first of them
        self._streams: list[DetectionStream] = []
        self._calls: set[PendingCall[Any]] = set()  # that are not done
        if self._background is not None:
            self._background.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel the goals that are not finished, and remove everything from the node.

        Streams end, and calls that are not done raise :class:`~acs_core.errors.Cancelled`. Waits up to CLOSE_S until
        the node has received the cancellations; in a callback that cannot wait (see the class), another thread does
        that after this method has returned. Methods then raise :class:`~acs_ros.errors.NodeTrouble`; closing again does
        nothing.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
        for stream in list(self._streams):
            stream.close()
        goals = self._goals_not_done()
        try:
            self._waiter.check_thread()
        except RuntimeError:
            if goals:
                threading.Thread(target=self._finish, args=(goals,), name="closing a grounding client").start()
                return
        self._finish(goals)

    def _finish(self, goals: list[GroundingTask]) -> None:
        try:
            # ROS may have been shut down, and the user's node destroyed.
            with contextlib.suppress(RuntimeError, NodeTrouble, InvalidHandle):
                for goal in goals:
                    goal.cancel()
                self._waiter.wait(lambda: all(goal.cancel_arrived for goal in goals), CLOSE_S)
        finally:
            self._remove_everything()

    def _remove_everything(self) -> None:
        for call in list(self._calls):
            call.end(Cancelled("the client was closed"))
        self._waiter.close()
        self._goals.destroy()  # rclpy does not do that with the node, and the node would stay in the graph
        if self._background is not None:
            self._background.close()
            return
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
        if self._query is not None:
            self._node.destroy_publisher(self._query)
        for client in self._clients.values():
            self._node.destroy_client(client)

    def _check_open(self) -> None:
        if self._closed:
            raise NodeTrouble(self._closed_message)

    # --- the node ----------------------------------------------------------------------------------------------------

    def state(self, timeout: float | None = SERVICE_S) -> str:
        """The lifecycle state of the node: "unconfigured", "inactive", "active", ...

        Raises:
            TimeoutError: there is no such node, or it does not answer.
        """
        return self._call("get_state", GetState.Request(), lambda r: str(r.current_state.label), timeout)

    def wait_until_active(self, timeout: float | None = None) -> None:
        """Wait until the node is active and its action can be called. Loading a model may take minutes. A node that is
        not there for NOTICE_S of :mod:`acs_ros.client.pending_calls` is named in the log, once.

        Raises:
            TimeoutError: it is not within ``timeout`` seconds; says the last state.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        state = ""
        try:
            missing = f"no node {self._target} seen yet: is it running, with this ROS_DOMAIN_ID?"
            self._waiter.wait(self._client("get_state").service_is_ready, timeout, notice=missing)
            while state != "active" or not self._goals.server_is_ready():
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                if left == 0:
                    said = f"it is {state}" if state else "no such node was found"
                    raise TimeoutError(f"{self._target} was not active within {timeout or 0:g} s: {said}")
                if state:
                    self._waiter.wait(lambda: False, POLL_S if left is None else min(POLL_S, left))
                try:
                    state = self.state(left)
                except TimeoutError:
                    continue
        except KeyboardInterrupt as stopped:
            raise stopped.with_traceback(None) from None  # without the steps of the wait

    # --- one phrase, once --------------------------------------------------------------------------------------------

    def ground(
        self, phrase: str, image: ImageSource | None = None, *, timeout: float | None = GROUND_S, **options: Any
    ) -> GroundReply:
        """Ground ``phrase`` once, in ``image`` or in the camera's next frame, and wait for the result.

        Ctrl-C and a timeout cancel the goal, and wait for its end once more: up to ``timeout``, at most CANCEL_S.

        Args:
            phrase: The phrase.
            image: (H, W, 3) uint8 RGB, an image message, or the path of a JPEG, PNG, WebP or BMP file; None for the
                camera's next frame.
            timeout: Longest wait, for the node to appear included.
            options: As for :meth:`ground_async`.

        Returns:
            The detections; none, with a reason, if nothing was found.

        Raises:
            TimeoutError: there is no node, or no result in time.
            NodeTrouble: the node aborted the goal, and says why; or it is gone.
            Cancelled: :meth:`cancel` or :meth:`close` was called.
            ImageError: the array is no image.
            OSError: the file cannot be read.
        """
        began = time.monotonic()
        goal, on_stage = make_goal(phrase, image, **options)
        self._wait_for(self._goals.server_is_ready, self._goals.name, "action server", timeout)
        task = self._send(goal, on_stage)
        try:
            return task.result(None if timeout is None else max(0.0, began + timeout - time.monotonic()))
        except (Cancelled, NodeTrouble):
            raise
        except BaseException:  # Ctrl-C or SIGTERM in the main thread, or a timeout: nobody wants the result any more
            with contextlib.suppress(RuntimeError, NodeTrouble, InvalidHandle):  # which must not hide the reason
                task.cancel(CANCEL_S if timeout is None else min(CANCEL_S, timeout))
            raise

    def ground_async(self, phrase: str, image: ImageSource | None = None, **options: Any) -> GroundingTask:
        """Send a goal and return at once; the task can be awaited, waited for, and cancelled.

        Args:
            phrase: The phrase.
            image: See :meth:`ground`.
            options: ``region``: the part of the image to search, a :class:`~acs_core.geometry.Box` in pixels or a
                ``sensor_msgs/RegionOfInterest``; ``camera``: name of the camera; ``multiple``: every object, not only
                the best one; ``samples``: number of responses; ``deadline``: seconds after which sampling ends;
                ``min_score``: threshold; ``on_stage``: called with each stage that begins and the seconds so far.

        Raises:
            NodeTrouble: there is no such node, or it was not discovered yet: :meth:`wait_until_active` waits for it.
            ImageError, OSError: see :meth:`ground`.
        """
        goal, on_stage = make_goal(phrase, image, **options)
        self._check_open()
        if not self._goals.server_is_ready():
            raise NodeTrouble(f"no action server {self._goals.name}: is the node running?")
        return self._send(goal, on_stage)

    def cancel(self, timeout: float | None = CANCEL_S) -> bool:
        """Cancel all goals of this client. Returns whether they have ended within ``timeout`` seconds."""
        goals = self._goals_not_done()
        for goal in goals:
            goal.cancel()
        if timeout == 0:
            return all(goal.done for goal in goals)
        return self._waiter.wait(lambda: all(goal.done for goal in goals), timeout)

    def _goals_not_done(self) -> list[GroundingTask]:
        return [call for call in list(self._calls) if isinstance(call, GroundingTask)]

    def _send(self, goal: Ground.Goal, on_stage: OnStage | None) -> GroundingTask:
        with self._lock:  # no goal is sent after close() has looked for those to cancel
            self._check_open()
            task = GroundingTask(self._waiter, self._goals, goal, on_stage)
            self._watch(task)
            return task

    # --- standing queries --------------------------------------------------------------------------------------------

    def set_queries(self, phrases: str | Iterable[str], timeout: float | None = SERVICE_S) -> tuple[str, ...]:
        """Replace the standing queries. Returns them as the node cleaned them.

        Raises:
            PhraseError: the node refused a phrase; says which and why, and the queries are unchanged.
            TimeoutError: there is no such node, or it does not answer.
        """
        wanted = [phrases] if isinstance(phrases, str) else list(phrases)
        return self._call("set_queries", SetQueries.Request(phrases=wanted), _accepted_queries, timeout)

    def set_queries_async(self, phrases: str | Iterable[str]) -> PendingCall[tuple[str, ...]]:
        """Replace the standing queries without waiting; the call can be awaited.

        The request is sent as soon as the node is discovered. Where that takes longer than ABSENT_S of
        :mod:`acs_ros.client.pending_calls`, the call raises :class:`~acs_ros.errors.NodeTrouble`.
        """
        wanted = [phrases] if isinstance(phrases, str) else list(phrases)
        return self._send_request("set_queries", SetQueries.Request(phrases=wanted), _accepted_queries)

    def publish_query(self, text: str, timeout: float | None = SERVICE_S) -> None:
        """Publish ``text`` on ~/query, as a speech node does: phrases separated by semicolons or line ends.

        The node does not respond; where it refuses the text, /diagnostics says why.

        Raises:
            TimeoutError: no node subscribes to the topic.
        """
        with self._lock:
            self._check_open()
            if self._query is None:
                self._query = self._node.create_publisher(String, f"{self._target}/query", reliable(1))
            publisher = self._query
        self._wait_for(lambda: publisher.get_subscription_count() > 0, publisher.topic_name, "subscriber of", timeout)
        publisher.publish(String(data=text))

    def queries(self, timeout: float | None = SERVICE_S) -> tuple[str, ...]:
        """The standing queries.

        Raises:
            TimeoutError: there is no such node, or it does not answer.
        """
        return self._call("list_queries", ListQueries.Request(), lambda r: tuple(r.phrases), timeout)

    def clear_queries(self, timeout: float | None = SERVICE_S) -> str:
        """Clear the standing queries. Returns the node's message.

        Raises:
            TimeoutError: there is no such node, or it does not answer.
            NodeTrouble: the node refuses; says why.
        """
        return self._call("clear_queries", Trigger.Request(), _message, timeout)

    def pause(self, timeout: float | None = SERVICE_S) -> str:
        """Pause the node: the model stays loaded, but neither it nor the camera is used. Returns the node's message.

        Raises:
            TimeoutError: there is no such node, or it does not answer.
            NodeTrouble: the node refuses; says why.
        """
        return self._call("pause", SetBool.Request(data=True), _message, timeout)

    def resume(self, timeout: float | None = SERVICE_S) -> str:
        """End a pause. Returns the node's message.

        Raises:
            TimeoutError: there is no such node, or it does not answer.
            NodeTrouble: the node refuses; says why.
        """
        return self._call("pause", SetBool.Request(data=False), _message, timeout)

    def status(self, timeout: float | None = SERVICE_S) -> ListQueries.Response:
        """The standing queries, the mode, whether the node is paused, and the number of goals.

        Raises:
            TimeoutError: there is no such node, or it does not answer.
        """
        return self._call("list_queries", ListQueries.Request(), lambda r: r, timeout)

    # --- detections --------------------------------------------------------------------------------------------------

    def detections(
        self,
        callback: Callable[[FrameObjects], None] | None = None,
        *,
        camera: str = "",
        tracks: bool = False,
        timeout: float | None = None,
    ) -> DetectionStream:
        """Subscribe to the detections of the standing queries, one :class:`FrameObjects` per answered frame.

        Args:
            callback: Called with each frame, on the thread that executes the node's callbacks. None: iterate over the
                stream that is returned.
            camera: Name of the camera; empty for the only one.
            tracks: Subscribe to ~/tracks instead, at camera rate; needs the parameter ``tracking``.
            timeout: Longest wait for the next frame of the iterator; None for ever.
        """
        topic = f"{self._target}/{camera}/" if camera else f"{self._target}/"
        topic += "tracks" if tracks else "detections"
        with self._lock:
            self._check_open()
            stream = DetectionStream(self._node, self._waiter, topic, callback, timeout, self._streams.remove)
            self._streams.append(stream)
            return stream

    # --- calls -------------------------------------------------------------------------------------------------------

    def _call(self, service: str, request: Any, convert: Callable[[Any], T], timeout: float | None) -> T:
        client = self._client(service)
        self._wait_for(client.service_is_ready, client.srv_name, "service", timeout)
        call = self._send_request(service, request, convert)
        try:
            return call.result(timeout)
        except BaseException as error:
            call.end(Cancelled(f"the call of {client.srv_name} was given up: {error}"))  # or it would be repeated
            raise

    def _send_request(self, service: str, request: Any, convert: Callable[[Any], T]) -> PendingCall[T]:
        with self._lock:
            call = ServiceCall(self._waiter, self._client(service), request, convert)
            self._watch(call)
            return call

    def _watch(self, call: PendingCall[Any]) -> None:
        """Keep ``call`` among the open calls until it is done."""
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        if self._timer is None:
            # Of the steady clock: simulated time may stand still.
            self._timer = self._node.create_timer(
                POLL_S, self._look, callback_group=self._group, clock=Clock(clock_type=ClockType.STEADY_TIME)
            )

    def _look(self) -> None:
        for call in list(self._calls):
            try:
                call.look()
            except (InvalidHandle, RuntimeError):  # RuntimeError: rclpy's RCLError
                if not self._closed and self._node.context.ok():
                    raise

    def _client(self, service: str) -> Any:
        with self._lock:
            self._check_open()
            if service not in self._clients:
                self._clients[service] = self._node.create_client(
                    SERVICES[service], f"{self._target}/{service}", callback_group=self._group
                )
            return self._clients[service]

    def _wait_for(self, ready: Callable[[], bool], name: str, kind: str, timeout: float | None) -> None:
        if not self._waiter.wait(ready, timeout):
            raise TimeoutError(f"no {kind} {name}: is the node running?")


def _accepted_queries(response: SetQueries.Response) -> tuple[str, ...]:
    if not response.success:
        raise PhraseError(response.message)
    return tuple(response.phrases)


def _message(response: Any) -> str:
    if not response.success:
        raise NodeTrouble(response.message)
    return str(response.message)
