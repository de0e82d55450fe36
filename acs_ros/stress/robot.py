"""Simulated robot: a camera and a client of every interface of the node, with a checker of every answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import numpy as np
from acs_msgs.action import Ground
from acs_msgs.msg import CandidateArray
from acs_msgs.srv import ListQueries, SetQueries
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import SetBool
from vision_msgs.msg import Detection2DArray

from acs_ros.client.background_node import BackgroundNode, GoalClient
from acs_ros.client.node_client import is_status_of
from acs_ros.conversions.images import fill_image, header_of, stamp_ns
from acs_ros.diagnostics.name_watch import nodes_with_parameters
from acs_ros.errors import NodeTrouble
from acs_ros.stress.answer_checker import AnswerChecker, SentFrame

NODE = "/grounding"
POLL_S = 0.002
RETRY_S = 2.0
RESEND_S = 30.0  # seconds; longer than a model takes for a frame
TRANSITIONS = {
    "configure": Transition.TRANSITION_CONFIGURE,
    "cleanup": Transition.TRANSITION_CLEANUP,
    "activate": Transition.TRANSITION_ACTIVATE,
    "deactivate": Transition.TRANSITION_DEACTIVATE,
}


class Robot:
    """Client of the node NODE; a context manager. ``alive`` raises :class:`NodeTrouble` if the node has ended.

    Every method that waits raises NodeTrouble on timeout. ``cameras`` are those whose answers are received. With
    ``strangers``, other clients send frames too, and answers are not checked.
    """

    def __init__(
        self,
        domain_id: int | None,
        alive: Callable[[], None],
        cameras: Sequence[str] = ("",),
        strangers: bool = False,
    ) -> None:
        self._strangers = strangers
        self.alive = alive
        self.checker = AnswerChecker()
        self.asked: tuple[str, ...] = ()
        self.answered: dict[int, float] = {}  # stamp -> steady seconds at which ~/detections came
        self.shown_again = 0  # frames sent again in place of unanswered ones
        self._count = 0
        self._peer = BackgroundNode("soak", domain_id)
        node = self._peer.node
        many = QoSProfile(depth=200, reliability=ReliabilityPolicy.RELIABLE)
        for prefix in (f"{NODE}/{name}" if name else NODE for name in cameras):
            node.create_subscription(Detection2DArray, f"{prefix}/detections", self._on_detections, many)
            node.create_subscription(CandidateArray, f"{prefix}/candidates", self._on_candidates, many)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, many)
        self._images = node.create_publisher(Image, f"{NODE}/image", QoSProfile(depth=5))
        self.query_topic = node.create_publisher(String, f"{NODE}/query", QoSProfile(depth=50))
        self._change: Any = node.create_client(ChangeState, f"{NODE}/change_state")
        self._state: Any = node.create_client(GetState, f"{NODE}/get_state")
        self._set: Any = node.create_client(SetQueries, f"{NODE}/set_queries")
        self._list: Any = node.create_client(ListQueries, f"{NODE}/list_queries")
        self._pause: Any = node.create_client(SetBool, f"{NODE}/pause")
        self._ground = GoalClient(node, NODE)
        self.status, self.values, self._status_at = "nothing on /diagnostics", dict[str, str](), 0.0

    def __enter__(self) -> Robot:
        self._peer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ground.destroy()
        self._peer.close()

    def meet(self, timeout: float) -> None:
        """Wait until all services and the action of the node are available."""
        for client in (self._change, self._state, self._set, self._list, self._pause):
            self.wait(client.service_is_ready, timeout, client.srv_name)
        self.wait(self._ground.server_is_ready, timeout, f"{NODE}/ground")

    def meet_again(self, timeout: float) -> None:
        """Wait until a restarted node answers. DDS lists the services of the dead node as ready for a while, and
        requests to it are lost."""
        deadline = time.monotonic() + timeout
        for ask in (self.state, self.list_queries):
            while True:
                try:
                    ask(min(RETRY_S, timeout))
                    break
                except NodeTrouble:
                    self.alive()
                    if time.monotonic() > deadline:
                        raise

    def strangers(self) -> int:
        """Return the number of other nodes with the same name on this DDS domain, which would answer our requests,
        too."""
        found = nodes_with_parameters(self._peer.node)
        return max(0, sum(f"{namespace.rstrip('/')}/{name}" == NODE for name, namespace in found) - 1)

    # --- lifecycle and services --------------------------------------------------------------------------------------

    def change(self, name: str, timeout: float) -> None:
        """Trigger the lifecycle transition ``name``."""
        if name == "activate":
            self.checker.activated(time.time_ns())
        request = ChangeState.Request(transition=Transition(id=TRANSITIONS[name]))
        if not self.call(self._change, request, timeout, name).success:
            raise NodeTrouble(f"the node could not {name}: {self.status}")
        if name == "deactivate":
            self.checker.deactivated(time.time_ns())

    def state(self, timeout: float) -> str:
        """Return the node's lifecycle state."""
        return str(self.call(self._state, GetState.Request(), timeout, "tell its state").current_state.label)

    def ask_for(self, phrases: Sequence[str], timeout: float) -> None:
        """Set the standing queries by the service."""
        wanted, before = tuple(phrases), self.asked
        self.checker.phrases_asked(wanted, time.time_ns())
        answer = self.call(self._set, SetQueries.Request(phrases=list(wanted)), timeout, "take queries")
        if not answer.success:
            raise NodeTrouble(f"the node refused {wanted}: {answer.message}")
        self.checker.phrases_replaced(before, time.time_ns())
        self.asked = wanted

    def ask_by_topic(self, phrases: Sequence[str], timeout: float) -> None:
        """Set the standing queries by the topic ~/query, and wait until they are in force."""
        wanted, before = tuple(phrases), self.asked
        self.checker.phrases_asked(wanted, time.time_ns())
        self.query_topic.publish(String(data="; ".join(wanted)))
        deadline = time.monotonic() + timeout
        while self.list_queries(timeout) != wanted:
            if time.monotonic() > deadline:
                raise NodeTrouble(f"the node does not ask {wanted} {timeout:g} s after ~/query; it says: {self.status}")
        self.checker.phrases_replaced(before, time.time_ns())
        self.asked = wanted

    def try_queries(self, phrases: Sequence[str], timeout: float) -> str:
        """Set queries that should be refused; returns the message of the refusal, "" if they were accepted."""
        answer = self.call(self._set, SetQueries.Request(phrases=list(phrases)), timeout, "judge queries")
        return "" if answer.success else str(answer.message)

    def list_queries(self, timeout: float) -> tuple[str, ...]:
        """Return the standing queries of the node."""
        return tuple(self.call(self._list, ListQueries.Request(), timeout, "list its queries").phrases)

    def pause(self, on: bool, timeout: float) -> None:
        """Pause the node, or resume it."""
        if not on:
            self.checker.activated(time.time_ns())
        self.call(self._pause, SetBool.Request(data=on), timeout, "pause")
        if on:
            self.checker.deactivated(time.time_ns())

    # --- frames and goals --------------------------------------------------------------------------------------------

    def show(self, picture: np.ndarray, stamp: int = 0) -> int:
        """Publish an (H, W, 3) uint8 RGB frame with a unique frame_id; returns its stamp in nanoseconds."""
        msg, stamp = self.frame(picture, stamp)
        self._images.publish(msg)
        return stamp

    def show_broken(self, msg: Image) -> None:
        """Publish an image message as it is, unchecked."""
        self._images.publish(msg)

    def frame(self, picture: np.ndarray, stamp: int = 0) -> tuple[Image, int]:
        """Create a frame and record it as sent; returns the message and its stamp in nanoseconds."""
        self._count += 1
        stamp = stamp or time.time_ns()
        header = header_of(stamp, f"camera_{self._count}")
        height, width = picture.shape[:2]
        self.checker.frame_sent(stamp, SentFrame(header.frame_id, width, height, time.time_ns()))
        return fill_image(Image(header=header), picture), stamp

    def answered_after(self, picture: np.ndarray, timeout: float, offset_ns: int = 0) -> float:
        """Publish a frame and wait for its answer; returns the seconds in between. ``offset_ns`` is added to its stamp.

        Images are best effort: on a busy machine one may be lost, or reach a subscription that the node has just
        destroyed, which is not a fault of the node. After RESEND_S another one is sent.
        """
        deadline = time.monotonic() + timeout
        while True:
            began = time.monotonic()
            stamp = self.show(picture, time.time_ns() + offset_ns)
            try:
                return self.wait_for_answer(stamp, min(RESEND_S, timeout)) - began
            except NodeTrouble:
                self.alive()
                if time.monotonic() > deadline:
                    raise
                self.shown_again += 1

    def wait_for_answer(self, stamp: int, timeout: float) -> float:
        """Wait for ~/detections of the frame with ``stamp``; returns the steady time in seconds at which they came."""
        self.wait(lambda: stamp in self.answered, timeout, "an answer to the newest frame")
        return self.answered[stamp]

    def connected(self, timeout: float) -> None:
        """Wait until the node has subscribed to the camera; earlier frames need no answer."""
        self.wait(lambda: self._images.get_subscription_count() > 0, timeout, "the node to subscribe to images")

    def send_goal(self, goal: Ground.Goal, timeout: float) -> Any:
        """Send a goal; returns its handle once it is accepted."""
        self.checker.phrases_asked((goal.phrase,), time.time_ns())
        future = self._ground.send(goal)
        self.wait(future.done, timeout, "the node to take a goal")
        handle = future.result()
        if not handle.accepted:
            raise NodeTrouble(f"the goal {goal.phrase!r} was rejected without words")
        return handle

    def result(self, handle: Any, goal: Ground.Goal, timeout: float) -> Any:
        """Wait for the end of a goal; returns its status and result."""
        future = handle.get_result_async()
        self.wait(future.done, timeout, f"the result of the goal {goal.phrase!r}")
        self.checker.phrases_replaced((goal.phrase,), time.time_ns())
        return future.result()

    # --- waiting -----------------------------------------------------------------------------------------------------

    def call(self, client: Any, request: Any, timeout: float, what: str) -> Any:
        """Call a service; returns its response."""
        future = client.call_async(request)
        self.wait(future.done, timeout, f"the node to {what}")
        return future.result()

    def wait(self, condition: Callable[[], Any], timeout: float, what: str) -> None:
        """Wait until ``condition`` is true; ``what`` names it in the error."""
        deadline = time.monotonic() + timeout
        while not condition():
            self.alive()
            if time.monotonic() > deadline:
                raise NodeTrouble(f"waited {timeout:g} s in vain for {what}; the node says: {self.status}")
            time.sleep(POLL_S)

    def fresh_status(self, timeout: float) -> str:
        """Wait for a diagnostic that comes after this call; returns its message."""
        began = time.monotonic()
        self.wait(lambda: self._status_at > began, timeout, "a diagnostic")
        return self.status

    def _on_detections(self, msg: Detection2DArray, info: Any) -> None:
        if not self._strangers:
            self.checker.check_detections(msg, info["source_timestamp"])
        self.answered.setdefault(stamp_ns(msg.header), time.monotonic())

    def _on_candidates(self, msg: CandidateArray, info: Any) -> None:
        if not self._strangers:
            self.checker.check_candidates(msg, info["source_timestamp"])

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        for status in msg.status:
            if is_status_of(NODE, status):
                self.values = {v.key: v.value for v in status.values}
                self.status, self._status_at = status.message, time.monotonic()
