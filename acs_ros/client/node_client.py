"""Client of a running grounding node: lifecycle, parameters, queries, frames and their answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
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
from vision_msgs.msg import Detection2D, Detection2DArray

from acs_core.arguments import clean_phrase
from acs_core.types import Detection, GroundingResult, Outcome
from acs_ros.client.background_node import BackgroundNode
from acs_ros.conversions.detections import box_from_message, result_from_message
from acs_ros.conversions.images import fill_image, stamp_ns
from acs_ros.errors import NodeTrouble

T = TypeVar("T")
POLL_S = 0.002
FIRST_ANSWER_S = 2.0


@dataclass(frozen=True)
class FrameReply:
    """Both messages about one frame, and the time from publishing the frame to receiving them in milliseconds."""

    detections: Detection2DArray
    candidates: CandidateArray
    latency_ms: float


class NodeClient:
    """Client of the node ``target`` (fully qualified name) in its own context; a context manager.

    ``alive`` is called while waiting and raises :class:`NodeTrouble` if the node's process has ended.
    """

    def __init__(
        self, target: str = "/grounding", domain_id: int | None = None, alive: Callable[[], None] = lambda: None
    ) -> None:
        self._alive, self._target = alive, target
        self._peer = BackgroundNode("grounding_client", domain_id)
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
        """Message of the node's last diagnostic."""
        return self._status.message if self._status else "nothing on /diagnostics"

    def wait_for_services(self, timeout: float) -> None:
        """Wait until the node's services answer.

        Raises:
            NodeTrouble: they do not within ``timeout`` seconds, or the node died.
        """
        self._wait(self._change.service_is_ready, timeout, f"{self._target} to appear")
        for client in (self._get, self._set):
            self._wait(client.service_is_ready, timeout, client.srv_name)
        deadline = time.monotonic() + timeout
        while True:  # the first response is lost if the node has not discovered the client's response reader yet
            try:
                self.state(FIRST_ANSWER_S)
                return
            except NodeTrouble:
                self._alive()
                if time.monotonic() > deadline:
                    raise

    def change_state(self, transition: int, timeout: float) -> None:
        """Trigger a lifecycle transition (``Transition.TRANSITION_CONFIGURE``, ...).

        Raises:
            NodeTrouble: the node refuses or fails, takes longer than ``timeout`` seconds, or died.
        """
        request = ChangeState.Request(transition=Transition(id=transition))
        names = {Transition.TRANSITION_CONFIGURE: "configure", Transition.TRANSITION_ACTIVATE: "activate"}
        name = names.get(transition, f"transition {transition}")
        if not self._call(self._change, request, timeout, name).success:
            raise NodeTrouble(f"{self._target} could not {name}: {self.status}")

    def state(self, timeout: float) -> str:
        """Return the node's lifecycle state.

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
        """Return the values of a diagnostic with a stamp later than this call.

        If none comes within ``timeout`` seconds (the clock of another machine may be behind), returns those of the last
        one, or nothing if there was none.

        Raises:
            NodeTrouble: the node died.
        """
        deadline, asked = time.monotonic() + timeout, self._node.get_clock().now().nanoseconds
        while self._status_ns < asked and time.monotonic() < deadline:
            self._alive()
            time.sleep(POLL_S)
        return {v.key: v.value for v in self._status.values} if self._status else {}

    def wait_for_topics(self, timeout: float) -> None:
        """Wait until the topics of images and queries have a subscriber, and those of the answers a publisher.

        Raises:
            NodeTrouble: they have not within ``timeout`` seconds.
        """
        self._wait(lambda: self._images.get_subscription_count() > 0, timeout, "the node to subscribe to images")
        self._wait(lambda: self._queries.get_subscription_count() > 0, timeout, "the node to subscribe to queries")
        self._wait(self._hears_the_node, timeout, "the node's answers to be connected")

    def ask_for(self, phrase: str, timeout: float) -> None:
        """Publish a phrase and wait until /diagnostics reports it as the standing query.

        Raises:
            NodeTrouble: it is not reported within ``timeout`` seconds.
        """
        self._queries.publish(String(data=phrase))
        wanted = clean_phrase(phrase)
        self._wait(lambda: self._value("query") == wanted, timeout, f"the query {phrase!r} to be in force")

    def ask_about(self, header: Header, image: np.ndarray, phrase: str, timeout: float) -> FrameReply | None:
        """Publish an (H, W, 3) uint8 RGB frame and wait for the answer to ``phrase``.

        Returns None if no answer came within ``timeout`` seconds.

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
                return FrameReply(detections, candidates, (time.monotonic() - began) * 1000)
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
            if is_status_of(self._target, status):
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


def is_status_of(node: str, status: DiagnosticStatus) -> bool:
    """Whether a status on /diagnostics is that of the grounding node of the full name ``node``."""
    return any(value.key == "node" and value.value == node for value in status.values)


def read_answer(reply: FrameReply, header: Header, phrase: str) -> GroundingResult:
    """Return the answer to ``phrase`` about the frame with ``header``.

    The boxes and scores are those of ~/detections, which robots act on, each joined with its candidate of ~/candidates.
    The two messages must agree.

    Raises:
        NodeTrouble: a header or ``class_id`` does not belong to the question, or the two messages disagree.
        PhraseError: the phrase is invalid.
    """
    asked = clean_phrase(phrase)
    _same("the header of ~/candidates", reply.candidates.header, header)
    _same("the phrase of ~/candidates", reply.candidates.phrase, asked)
    _same("the header of ~/detections", reply.detections.header, header)
    # Indices of selected candidates that are not yet matched with a detection.
    selected = [i for i, c in enumerate(reply.candidates.candidates) if c.outcome == Outcome.SELECTED.value]
    read = []
    for found in reply.detections.detections:
        _same("the header of a detection", found.header, header)
        _same("the number of hypotheses of a detection", len(found.results), 1)
        _same("the class_id of a detection", found.results[0].hypothesis.class_id, asked)
        number = _candidate_of(found, reply, selected)
        selected.remove(number)
        read.append(Detection(box_from_message(found.bbox), found.results[0].hypothesis.score, number))
    if selected:
        raise NodeTrouble(f"~/candidates says {len(selected)} boxes were selected that are not on ~/detections")
    return replace(result_from_message(reply.candidates), detections=tuple(read))


def _candidate_of(found: Detection2D, reply: FrameReply, selected: list[int]) -> int:
    score = found.results[0].hypothesis.score
    from acs_core.selection.registry import fuses_boxes  # imports torch, which --help must not wait for

    for number in selected:
        candidate = reply.candidates.candidates[number]
        own = candidate.bbox == found.bbox or fuses_boxes(reply.candidates.selector)
        if own and candidate.score == score:  # both messages hold identical float64 values
            return number
    box = " ".join(f"{v:.1f}" for v in box_from_message(found.bbox).as_tuple())
    raise NodeTrouble(f"the box {box} with score {score:.3f} on ~/detections is no selected candidate of ~/candidates")


def _same(what: str, got: object, expected: object) -> None:
    if got != expected:
        raise NodeTrouble(f"{what} is {got!r}, but the question was about {expected!r}")
