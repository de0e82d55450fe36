"""What the tests of the ROS side share: a grounder that does as it is told, and a node that spins in this process."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: make test builds the environment that has it")
pytest.importorskip("acs_msgs", reason="needs the built interfaces: make test builds them")

import rclpy
from acs_msgs.action import Ground
from acs_msgs.msg import CandidateArray
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.executors import MultiThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import String
from vision_msgs.msg import Detection2DArray

import acs_core.candidates  # noqa: F401 - with torch, or the first answer of a process waits seconds for it
from acs_core.errors import Cancelled
from acs_core.geometry import Box
from acs_core.types import Candidate, Detection, GroundingResult, Outcome, Response, ScoreKind
from acs_ros.bags import stamp_ns
from acs_ros.dds import apply_profile
from acs_ros.goal_client import GoalClient
from acs_ros.grounding_node import GroundingNode
from acs_ros.image_conversion import fill_image
from acs_ros.spinning import spin

PATIENCE_S = 60.0
_domains = itertools.count(os.getpid() % 60)


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """The first true value of ``condition``; fails after PATIENCE_S."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.005)
    pytest.fail(f"waited {PATIENCE_S:g} s in vain for: {what}")


def make_result(phrase: str, size: tuple[int, int] = (8, 6), *, reason: str = "") -> GroundingResult:
    """A result with a chosen and an outranked box; with ``reason``, one that abstains."""
    chosen = Candidate(Box(1, 2, 4, 5), "a", 0, 0, (1, 3, 5, 7), 0.5, 0.75, 0, Outcome.SELECTED, "")
    other = Candidate(Box(0, 0, 2.5, 2), "b", 1, 2, (2, 4, 6, 8), 0.25, 0.5, 1, Outcome.OUTRANKED, "worse")
    return GroundingResult(
        phrase=phrase,
        image_size=size,
        detections=() if reason else (Detection(chosen.box, 0.75, 0),),
        candidates=() if reason else (chosen, other),
        responses=(Response("[...]", 1, True), Response("...", 0, False, "no box")),
        selector="fake",
        score_kind=ScoreKind.CALIBRATED,
        model="fake-model",
        revision=None,
        seed=7,
        reason=reason,
        timing_ms={"total": 3.5, "sampling": 2.0},
        attention=None if reason else np.eye(3, 4, dtype=np.float32),
    )


@dataclass
class FakeGrounder:
    """Answers at once, or holds every call until ``gate`` opens; ``error`` is raised instead of an answer."""

    model_name: str = "fake-model"
    selector_name: str = "fake"
    device: str = "cpu"
    reason: str = ""
    error: Exception | None = None
    obedient: bool = True  # whether a held call looks at should_stop
    calls: list[tuple[np.ndarray, str, dict[str, Any]]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    running: int = 0
    most_running: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    def ground_many(self, image: np.ndarray, phrases: Sequence[str], **options: Any) -> tuple[GroundingResult, ...]:
        return tuple(self.ground(image, phrase, **options) for phrase in phrases)

    def ground(
        self, image: np.ndarray, phrase: str, *, should_stop: Any = None, on_stage: Any = None, **options: Any
    ) -> GroundingResult:
        for stage in ("prompt", "sampling") if on_stage else ():
            on_stage(stage)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            self.calls.append((image, phrase, options))
            while not self.gate.wait(0.002):
                if self.obedient and should_stop():
                    raise Cancelled("asked to stop")
            if self.error is not None:
                raise self.error
            return make_result(phrase, (image.shape[1], image.shape[0]), reason=self.reason)
        finally:
            self.running -= 1


def make_image(value: int = 0, stamp: int = 1, width: int = 8, height: int = 6) -> Image:
    """A plain rgb8 image of one grey ``value``, stamped with ``stamp`` whole seconds."""
    msg = fill_image(Image(), np.full((height, width, 3), value, dtype=np.uint8))
    msg.header.stamp.sec, msg.header.frame_id = stamp, "camera_optical"
    return msg


class Rig:
    """A grounding node, a peer node that talks to it, and an executor thread for both, in one private context."""

    def __init__(self, load: Callable[..., Any], **parameters: Any) -> None:
        self.context = Context()
        self.domain = 1 + next(_domains) % 100
        rclpy.init(context=self.context, domain_id=self.domain)
        overrides = [
            Parameter(k, value=v) for k, v in ({"diagnostics_period": 0.1, "stale_after": 0.0} | parameters).items()
        ]
        self.node = GroundingNode(load=load, context=self.context, parameter_overrides=overrides)
        self.peer = Node("peer", context=self.context)
        self.detections: list[Detection2DArray] = []
        self.candidates: list[CandidateArray] = []
        self.diagnostics: list[DiagnosticArray] = []
        reliable = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
        subscribe = self.peer.create_subscription
        subscribe(Detection2DArray, "/grounding/detections", self.detections.append, reliable)
        subscribe(CandidateArray, "/grounding/candidates", self.candidates.append, reliable)
        subscribe(DiagnosticArray, "/diagnostics", self.diagnostics.append, reliable)
        self.images = self.peer.create_publisher(Image, "/grounding/image", reliable)
        self.queries = self.peer.create_publisher(String, "/grounding/query", reliable)
        self.ground = GoalClient(self.peer, "/grounding")
        self.executor = MultiThreadedExecutor(num_threads=6, context=self.context)
        for node in (self.node, self.peer):
            self.executor.add_node(node)
        self._done = threading.Event()
        self.spin_error: Exception | None = None
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        try:
            spin(self.executor, self._done.is_set)
        except Exception as error:  # an exception out of a callback ends spin; the tests look for it
            self.spin_error = error

    def activate(self) -> None:
        """Configure and activate, and wait until every topic is matched."""
        assert self.node.trigger_configure().name == "SUCCESS"
        assert self.node.trigger_activate().name == "SUCCESS"
        self.wait_for_match()

    def wait_for_match(self) -> None:
        """Wait until the node hears the peer and the peer hears the node."""
        wait_until(lambda: self.images.get_subscription_count() == 1, "the image subscription")
        wait_until(lambda: self.queries.get_subscription_count() == 1, "the query subscription")
        outputs = ("/grounding/detections", "/grounding/candidates", "/diagnostics")
        wait_until(lambda: all(self.peer.count_publishers(t) == 1 for t in outputs), "the node's publishers")
        wait_until(lambda: self.diagnostics, "a first diagnostic")

    def ask(self, *phrases: str) -> None:
        """Publish a query and wait until it is in force."""
        self.queries.publish(String(data="; ".join(phrases)))
        wanted = tuple(p for p in phrases if p)
        wait_until(lambda: self.node.asker.queries == wanted, f"the query {phrases!r}")

    def status(self) -> tuple[int, str, dict[str, str]]:
        """Level, message and values of a diagnostic that is made now."""
        asked = self.node.get_clock().now().nanoseconds
        self.node.reporter.publish()
        # An older one may still be on its way, and another thread's come after this one.
        fresh = wait_until(lambda: [d for d in self.diagnostics if stamp_ns(d.header) >= asked], "a diagnostic")
        status = fresh[0].status[0]
        return status.level[0], status.message, {v.key: v.value for v in status.values}

    def call(self, kind: Any, name: str, **fields: Any) -> Any:
        """The response of the node's service ``name``."""
        client = self.peer.create_client(kind, f"/grounding/{name}")
        wait_until(client.service_is_ready, f"the service {name}")
        future = client.call_async(kind.Request(**fields))
        wait_until(future.done, f"the response of {name}")
        return future.result()

    def send_goal(self, **fields: Any) -> Any:
        """The future of a goal's acceptance."""
        feedback = fields.pop("feedback_callback", None)
        return self.ground.send(Ground.Goal(**fields), feedback_callback=feedback)

    def rest(self) -> None:
        """Wait until the model's thread is done with what it was given, pictures included."""
        ended = threading.Event()
        task = SimpleNamespace(run=lambda should_stop: ended.set(), abandon=lambda reason: ended.set())
        self.node.asker._worker.enqueue(task)
        wait_until(ended.is_set, "the model's thread")

    def listen(self, kind: Any, topic: str, qos: Any = 10) -> list[Any]:
        """What comes on ``topic`` from now on, once it is matched."""
        got: list[Any] = []
        self.peer.create_subscription(kind, topic, got.append, qos)
        wait_until(lambda: self.peer.count_publishers(topic) == self.node.count_subscribers(topic) == 1, topic)
        return got

    def close(self) -> None:
        self.node.close()
        self._done.set()
        self._thread.join(5)
        self.executor.shutdown(timeout_sec=5)
        self.peer.destroy_node()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)
        assert self.spin_error is None


@pytest.fixture(autouse=True)
def _private_dds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.delenv("FASTDDS_DEFAULT_PROFILES_FILE", raising=False)
    apply_profile()


@pytest.fixture
def grounder() -> FakeGrounder:
    return FakeGrounder()


@pytest.fixture
def make_rig() -> Iterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def make(load: Callable[..., Any], **parameters: Any) -> Rig:
        rigs.append(Rig(load, **parameters))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


@pytest.fixture
def rig(make_rig: Callable[..., Rig], grounder: FakeGrounder) -> Iterator[Rig]:
    """An active node around ``grounder``."""
    made = make_rig(lambda settings: grounder)
    made.activate()
    yield made
    grounder.gate.set()


@pytest.fixture
def image() -> Callable[..., Image]:
    return make_image


@pytest.fixture
def result() -> Callable[..., GroundingResult]:
    return make_result


@pytest.fixture
def until() -> Callable[..., Any]:
    return wait_until
