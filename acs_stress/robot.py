"""The robot of a soak: one camera, one client of every interface of the node, and a witness of every answer."""

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
from std_msgs.msg import Header, String
from std_srvs.srv import SetBool
from vision_msgs.msg import Detection2DArray

from acs_ros.goal_client import GoalClient
from acs_ros.image_conversion import fill_image
from acs_ros.node_client import NodeTrouble
from acs_ros.peer import Peer
from acs_stress.promises import Promises, SentFrame

NODE = "/grounding"
POLL_S = 0.002
RETRY_S = 2.0
TRANSITIONS = {
    "configure": Transition.TRANSITION_CONFIGURE,
    "cleanup": Transition.TRANSITION_CLEANUP,
    "activate": Transition.TRANSITION_ACTIVATE,
    "deactivate": Transition.TRANSITION_DEACTIVATE,
}


class Robot:
    """Talks to the node NODE; a context manager. ``alive`` raises :class:`NodeTrouble` when the node's process is gone.

    Every method that waits raises NodeTrouble when it waited in vain: the node broke a promise. ``cameras`` are those
    whose answers are heard; with ``strangers``, frames come from others too, and answers are not held against what
    was sent.
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
        self.promises = Promises()
        self.asked: tuple[str, ...] = ()
        self.answered: dict[int, float] = {}  # stamp -> steady seconds at which ~/detections came
        self._count = 0
        self._peer = Peer("soak", domain_id)
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
        """Wait until the node is on DDS."""
        for client in (self._change, self._state, self._set, self._list, self._pause):
            self.wait(client.service_is_ready, timeout, client.srv_name)
        self.wait(self._ground.server_is_ready, timeout, f"{NODE}/ground")

    def meet_again(self, timeout: float) -> None:
        """Wait until a node that was started in another's place answers. DDS takes the dead one for alive for a while
        yet, so that its services count as ready, and what is asked of it is lost."""
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
        """How many other nodes of the same name are on this DDS domain: they answer what is asked of ours."""
        names = self._peer.node.get_node_names_and_namespaces()
        return max(0, sum(f"{namespace.rstrip('/')}/{name}" == NODE for name, namespace in names) - 1)

    # --- lifecycle and services --------------------------------------------------------------------------------------

    def change(self, name: str, timeout: float) -> None:
        """Take the node through the transition of that name."""
        if name == "activate":
            self.promises.speaking(time.time_ns())
        request = ChangeState.Request(transition=Transition(id=TRANSITIONS[name]))
        if not self.call(self._change, request, timeout, name).success:
            raise NodeTrouble(f"the node could not {name}: {self.status}")
        if name == "deactivate":
            self.promises.silent(time.time_ns())

    def state(self, timeout: float) -> str:
        """The node's lifecycle state."""
        return str(self.call(self._state, GetState.Request(), timeout, "tell its state").current_state.label)

    def ask_for(self, phrases: Sequence[str], timeout: float) -> None:
        """Make ``phrases`` the standing queries, by service."""
        wanted, before = tuple(phrases), self.asked
        self.promises.asking(wanted, time.time_ns())
        answer = self.call(self._set, SetQueries.Request(phrases=list(wanted)), timeout, "take queries")
        if not answer.success:
            raise NodeTrouble(f"the node refused {wanted}: {answer.message}")
        self.promises.over(before, time.time_ns())
        self.asked = wanted

    def ask_by_topic(self, phrases: Sequence[str], timeout: float) -> None:
        """Make ``phrases`` the standing queries, by ~/query."""
        wanted, before = tuple(phrases), self.asked
        self.promises.asking(wanted, time.time_ns())
        self.query_topic.publish(String(data="; ".join(wanted)))
        deadline = time.monotonic() + timeout
        while self.list_queries(timeout) != wanted:
            if time.monotonic() > deadline:
                raise NodeTrouble(f"the node does not ask {wanted} {timeout:g} s after ~/query; it says: {self.status}")
        self.promises.over(before, time.time_ns())
        self.asked = wanted

    def try_queries(self, phrases: Sequence[str], timeout: float) -> str:
        """The words with which the node refuses ``phrases``; empty: it took them."""
        answer = self.call(self._set, SetQueries.Request(phrases=list(phrases)), timeout, "judge queries")
        return "" if answer.success else str(answer.message)

    def list_queries(self, timeout: float) -> tuple[str, ...]:
        """The standing queries as the node tells them."""
        return tuple(self.call(self._list, ListQueries.Request(), timeout, "list its queries").phrases)

    def pause(self, on: bool, timeout: float) -> None:
        """Hold the node, or let it go on."""
        if not on:
            self.promises.speaking(time.time_ns())
        self.call(self._pause, SetBool.Request(data=on), timeout, "pause")
        if on:
            self.promises.silent(time.time_ns())

    # --- frames and goals --------------------------------------------------------------------------------------------

    def show(self, picture: np.ndarray, stamp: int = 0) -> int:
        """Publish an (H, W, 3) uint8 RGB frame under a frame_id of its own; its stamp in nanoseconds."""
        msg, stamp = self.frame(picture, stamp)
        self._images.publish(msg)
        return stamp

    def show_broken(self, msg: Image) -> None:
        """Publish an image as it is."""
        self._images.publish(msg)

    def frame(self, picture: np.ndarray, stamp: int = 0) -> tuple[Image, int]:
        """A frame and its stamp, noted as sent."""
        self._count += 1
        stamp = stamp or time.time_ns()
        header = Header(frame_id=f"camera_{self._count}")
        header.stamp.sec, header.stamp.nanosec = divmod(stamp, 1_000_000_000)
        height, width = picture.shape[:2]
        self.promises.sent(stamp, SentFrame(header.frame_id, width, height, time.time_ns()))
        return fill_image(Image(header=header), picture), stamp

    def wait_for_answer(self, stamp: int, timeout: float) -> float:
        """When ~/detections about the frame of ``stamp`` came, in steady seconds."""
        self.wait(lambda: stamp in self.answered, timeout, "an answer to the newest frame")
        return self.answered[stamp]

    def connected(self, timeout: float) -> None:
        """Wait until the node hears the camera; a frame sent before is nobody's promise."""
        self.wait(lambda: self._images.get_subscription_count() > 0, timeout, "the node to subscribe to images")

    def send_goal(self, goal: Ground.Goal, timeout: float) -> Any:
        """The handle of an accepted goal."""
        self.promises.asking((goal.phrase,), time.time_ns())
        future = self._ground.send(goal)
        self.wait(future.done, timeout, "the node to take a goal")
        handle = future.result()
        if not handle.accepted:
            raise NodeTrouble(f"the goal {goal.phrase!r} was rejected without words")
        return handle

    def result(self, handle: Any, goal: Ground.Goal, timeout: float) -> Any:
        """Status and result of a goal, once it has ended."""
        future = handle.get_result_async()
        self.wait(future.done, timeout, f"the result of the goal {goal.phrase!r}")
        self.promises.over((goal.phrase,), time.time_ns())
        return future.result()

    # --- waiting -----------------------------------------------------------------------------------------------------

    def call(self, client: Any, request: Any, timeout: float, what: str) -> Any:
        """A service's answer."""
        future = client.call_async(request)
        self.wait(future.done, timeout, f"the node to {what}")
        return future.result()

    def wait(self, condition: Callable[[], Any], timeout: float, what: str) -> None:
        """Wait until ``condition``."""
        deadline = time.monotonic() + timeout
        while not condition():
            self.alive()
            if time.monotonic() > deadline:
                raise NodeTrouble(f"waited {timeout:g} s in vain for {what}; the node says: {self.status}")
            time.sleep(POLL_S)

    def fresh_status(self, timeout: float) -> str:
        """What a diagnostic says that came after this call."""
        began = time.monotonic()
        self.wait(lambda: self._status_at > began, timeout, "a diagnostic")
        return self.status

    def _on_detections(self, msg: Detection2DArray, info: Any) -> None:
        if not self._strangers:
            self.promises.check_detections(msg, info["source_timestamp"])
        stamp = int(msg.header.stamp.sec) * 1_000_000_000 + int(msg.header.stamp.nanosec)
        self.answered.setdefault(stamp, time.monotonic())

    def _on_candidates(self, msg: CandidateArray, info: Any) -> None:
        if not self._strangers:
            self.promises.check_candidates(msg, info["source_timestamp"])

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        for status in msg.status:
            if status.name.startswith(f"{NODE}:"):
                self.values = {v.key: v.value for v in status.values}
                self.status, self._status_at = status.message, time.monotonic()
