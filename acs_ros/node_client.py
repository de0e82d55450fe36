"""Talks to a running grounding node over DDS: brings it up, asks about frames, waits for the answers."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from acs_msgs.msg import CandidateArray
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header, String
from vision_msgs.msg import Detection2DArray

from acs_core.phrase import clean_phrase
from acs_ros.bags import stamp_ns
from acs_ros.image_conversion import fill_image
from acs_ros.peer import Peer

T = TypeVar("T")
POLL_S = 0.002
FIRST_ANSWER_S = 2.0


class NodeTrouble(Exception):
    """The node does not come up, died, or refused; the message says which and what it said last."""


@dataclass(frozen=True)
class Reply:
    """Both messages about one frame, and the milliseconds from sending the frame to having them."""

    detections: Detection2DArray
    candidates: CandidateArray
    latency_ms: float


def own_domain() -> int:
    """The user's DDS domain, or a private one for a node that only this process talks to.

    Raises:
        NodeTrouble: ROS_DOMAIN_ID is no number.
    """
    given = os.environ.get("ROS_DOMAIN_ID", "")
    if given and not given.isdecimal():
        raise NodeTrouble(f"ROS_DOMAIN_ID must be a whole number from 0 to 101, it is {given!r}")
    return int(given) if given else 1 + os.getpid() % 100


class NodeClient:
    """A peer of the node ``target`` (fully qualified name) in a context of its own; a context manager.

    ``alive`` tells while waiting whether it is still worth it; it raises :class:`NodeTrouble` when not.
    """

    def __init__(
        self, target: str = "/grounding", domain_id: int | None = None, alive: Callable[[], None] = lambda: None
    ) -> None:
        self._alive, self._target = alive, target
        self._peer = Peer("grounding_client", domain_id)
        self._node = self._peer.node
        reliable = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        self._lock = threading.Lock()
        self._detections: dict[int, Detection2DArray] = {}
        self._candidates: dict[tuple[int, str], CandidateArray] = {}
        self._status: DiagnosticStatus | None = None
        self._status_ns = 0  # its stamp
        subscribe = self._node.create_subscription
        self._outputs = [f"{target}/detections", f"{target}/candidates", "/diagnostics"]
        subscribe(Detection2DArray, self._outputs[0], self._on_detections, reliable)
        subscribe(CandidateArray, self._outputs[1], self._on_candidates, reliable)
        subscribe(DiagnosticArray, self._outputs[2], self._on_diagnostics, reliable)
        self._images = self._node.create_publisher(Image, f"{target}/image", reliable)
        self._queries = self._node.create_publisher(String, f"{target}/query", reliable)
        self._change: Any = self._node.create_client(ChangeState, f"{target}/change_state")
        self._set: Any = self._node.create_client(SetParameters, f"{target}/set_parameters")
        self._get: Any = self._node.create_client(GetState, f"{target}/get_state")
        self._peer.start()

    def __enter__(self) -> NodeClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._peer.close()

    @property
    def status(self) -> str:
        """What the node's last diagnostic said."""
        return self._status.message if self._status else "nothing on /diagnostics"

    def wait_for_services(self, timeout: float) -> None:
        """Wait until the node is up.

        Raises:
            NodeTrouble: it is not within ``timeout`` seconds, or died.
        """
        self._wait(self._change.service_is_ready, timeout, f"{self._target} to appear")
        for client in (self._get, self._set):
            self._wait(client.service_is_ready, timeout, client.srv_name)
        deadline = time.monotonic() + timeout
        while True:  # the first answer is lost where the node hears this client and does not know yet that it is heard
            try:
                self.state(FIRST_ANSWER_S)
                return
            except NodeTrouble:
                self._alive()
                if time.monotonic() > deadline:
                    raise

    def change_state(self, transition: int, timeout: float) -> None:
        """Take the node through a transition (``Transition.TRANSITION_CONFIGURE``, ...).

        Raises:
            NodeTrouble: the node refuses or fails, takes longer than ``timeout`` seconds, or died.
        """
        request = ChangeState.Request(transition=Transition(id=transition))
        names = {Transition.TRANSITION_CONFIGURE: "configure", Transition.TRANSITION_ACTIVATE: "activate"}
        name = names.get(transition, f"transition {transition}")
        if not self._call(self._change, request, timeout, name).success:
            raise NodeTrouble(f"{self._target} could not {name}: {self.status}")

    def state(self, timeout: float) -> str:
        """The node's lifecycle state.

        Raises:
            NodeTrouble: no answer within ``timeout`` seconds.
        """
        return str(self._call(self._get, GetState.Request(), timeout, "state").current_state.label)

    def set_parameter(self, name: str, value: Any, timeout: float) -> None:
        """Set one parameter.

        Raises:
            NodeTrouble: the node refuses, or does not answer within ``timeout`` seconds.
        """
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        (outcome,) = self._call(self._set, request, timeout, f"set {name}").results
        if not outcome.successful:
            raise NodeTrouble(f"{self._target} refused {name}={value!r}: {outcome.reason}")

    def fresh_values(self, timeout: float) -> dict[str, str]:
        """What a diagnostic says that the node made after this call, by its stamp; the last one where none came within
        ``timeout`` seconds (another machine's clock may be late), empty where there was none.

        Raises:
            NodeTrouble: the node died.
        """
        deadline, asked = time.monotonic() + timeout, self._node.get_clock().now().nanoseconds
        while self._status_ns < asked and time.monotonic() < deadline:
            self._alive()
            time.sleep(POLL_S)
        return {v.key: v.value for v in self._status.values} if self._status else {}

    def wait_for_topics(self, timeout: float) -> None:
        """Wait until images and queries have a listener and the answers a sender.

        Raises:
            NodeTrouble: not within ``timeout`` seconds.
        """
        self._wait(lambda: self._images.get_subscription_count() > 0, timeout, "the node to subscribe to images")
        self._wait(lambda: self._queries.get_subscription_count() > 0, timeout, "the node to subscribe to queries")
        self._wait(self._hears_the_node, timeout, "the node's answers to be connected")

    def ask_for(self, phrase: str, timeout: float) -> None:
        """Publish a phrase and wait until the node says that it is in force.

        Raises:
            NodeTrouble: not within ``timeout`` seconds.
        """
        self._queries.publish(String(data=phrase))
        wanted = clean_phrase(phrase)
        self._wait(lambda: self._value("query") == wanted, timeout, f"the query {phrase!r} to be in force")

    def ask_about(self, header: Header, image: np.ndarray, phrase: str, timeout: float) -> Reply | None:
        """Publish an (H, W, 3) uint8 RGB frame and wait for what is answered to ``phrase`` about it.

        None when nothing came within ``timeout`` seconds.

        Raises:
            NodeTrouble: the node died.
        """
        at, wanted = stamp_ns(header), clean_phrase(phrase)
        msg = fill_image(Image(header=header), image)
        with self._lock:
            self._detections.clear()
            self._candidates.clear()
        began = time.monotonic()
        self._images.publish(msg)
        deadline = began + timeout
        while time.monotonic() < deadline:
            with self._lock:
                detections, candidates = self._detections.get(at), self._candidates.get((at, wanted))
            if detections is not None and candidates is not None:
                return Reply(detections, candidates, (time.monotonic() - began) * 1000)
            self._alive()
            time.sleep(POLL_S)
        return None

    def _hears_the_node(self) -> bool:
        return self._status is not None and all(self._node.count_publishers(t) > 0 for t in self._outputs)

    def _on_detections(self, msg: Detection2DArray) -> None:
        with self._lock:
            self._detections[stamp_ns(msg.header)] = msg

    def _on_candidates(self, msg: CandidateArray) -> None:
        with self._lock:
            self._candidates[stamp_ns(msg.header), msg.phrase] = msg

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        for status in msg.status:
            if status.name.startswith(f"{self._target}:"):
                self._status, self._status_ns = status, stamp_ns(msg.header)

    def _value(self, key: str) -> str | None:
        return next((v.value for v in self._status.values if v.key == key), None) if self._status else None

    def _call(self, client: Any, request: Any, timeout: float, what: str) -> Any:
        future = client.call_async(request)
        self._wait(future.done, timeout, f"{self._target} to {what}")
        return future.result()

    def _wait(self, condition: Callable[[], T], timeout: float, what: str) -> T:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if value := condition():
                return value
            self._alive()
            time.sleep(POLL_S)
        raise NodeTrouble(f"waited {timeout:g} s in vain for {what}; the node says: {self.status}")
