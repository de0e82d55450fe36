"""What the tests of the ROS side share: a grounder that does as it is told, a node that spins in this process, and
small bags in both storages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: make test builds the environment that has it")
pytest.importorskip("acs_msgs", reason="needs the built interfaces: make test builds them")

import rclpy
import torch  # noqa: F401 - or the first answer of a process waits seconds for it
from acs_msgs.action import Ground
from acs_msgs.msg import CandidateArray
from diagnostic_msgs.msg import DiagnosticArray
from process_parts import fresh_domain
from rclpy.context import Context
from rclpy.executors import MultiThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import String
from vision_msgs.msg import Detection2DArray

from acs_core.errors import CalibrationError, Cancelled
from acs_core.geometry import Box
from acs_core.types import Candidate, Detection, GroundingResult, Outcome, Response, ScoreKind
from acs_ros.bags.bags import BagFrame, BagWriter
from acs_ros.client.background_node import GoalClient
from acs_ros.client.domains import domains_in_use
from acs_ros.conversions.images import encode_jpeg, fill_image, stamp_ns
from acs_ros.dds import apply_profile
from acs_ros.node.grounding_node import GroundingNode
from acs_ros.node.inference_worker import Task
from acs_ros.rclpy_fixes import spin_tolerant

PATIENCE_S = 60.0
PERIOD_NS = 250_000_000  # of the frames of a bag
CHOSEN = Box(1, 2, 4, 5)  # what the fake grounder answers


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
    revision: str | None = None
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

    def required_score(self, precision: float, second_look: bool = False) -> float:
        if precision == 0.95:  # the one that it cannot keep
            raise CalibrationError(f"no score keeps {precision:g}")
        return 0.75 if precision and not second_look else 0.25

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

    def __init__(
        self, load: Callable[..., Any], make_executor: Callable[..., Any] = MultiThreadedExecutor, **parameters: Any
    ) -> None:
        self.context = Context()
        self._domain = fresh_domain()
        self.domain = self._domain.__enter__()
        rclpy.init(context=self.context, domain_id=self.domain)
        overrides = [
            Parameter(k, value=v) for k, v in ({"diagnostics_period": 0.1, "stale_after": 0.0} | parameters).items()
        ]
        try:
            self.node = GroundingNode(load=load, context=self.context, parameter_overrides=overrides)
        except ValueError:  # refused parameters
            rclpy.shutdown(context=self.context)
            self._domain.__exit__(None, None, None)
            raise
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
        self.executor = make_executor(num_threads=6, context=self.context)
        for node in (self.node, self.peer):
            self.executor.add_node(node)
        self._done = threading.Event()
        self.spin_error: Exception | None = None
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        try:
            spin_tolerant(self.executor, self._done.is_set)
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
        wait_until(lambda: self.node.query_manager.queries == wanted, f"the query {phrases!r}")

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
        task = Task(run=lambda should_stop: ended.set(), abandon=lambda reason: ended.set())
        self.node.query_manager._worker.enqueue(task)
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
        self.ground.destroy()
        self.peer.destroy_node()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)
        left = self.domain in domains_in_use(own=True)
        self._domain.__exit__(None, None, None)
        assert self.spin_error is None
        assert not left, f"a node of this test stays on DDS domain {self.domain}"


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
    with ExitStack() as closing:  # closes all of them, also after one that fails to close

        def make(load: Callable[..., Any], **parameters: Any) -> Rig:
            rig = Rig(load, **parameters)
            closing.callback(rig.close)
            return rig

        yield make


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


def make_frames(count: int, phrase: str = "key", noise: bool = False) -> list[BagFrame]:
    """Frames of 40 x 30 pixels, stamped from 0.25 s on; the label is what the fake grounder answers. With ``noise``
    zstd cannot make them small."""
    rng = np.random.default_rng(3)
    made = []
    for i in range(count):
        image = rng.integers(0, 256, (300, 400, 3), np.uint8) if noise else np.full((30, 40, 3), 10 * i, np.uint8)
        made.append(BagFrame((i + 1) * PERIOD_NS, image, ((phrase, CHOSEN),)))
    return made


@pytest.fixture
def frames() -> Callable[..., list[BagFrame]]:
    return make_frames


@pytest.fixture
def make_bag(tmp_path: Path) -> Callable[..., Path]:
    """Writes a bag of frames; ``queries`` are pairs of a time in ns and a text."""

    def make(
        name: str = "bag",
        frames: list[BagFrame] | None = None,
        storage: str = "mcap",
        truth: bool = True,
        compressed: bool = False,
        queries: tuple[tuple[int, str], ...] = (),
    ) -> Path:
        frames = make_frames(4) if frames is None else frames
        messages: list[tuple[int, str, Any]] = [(at, "/grounding/query", String(data=text)) for at, text in queries]
        for frame in frames:
            if truth:
                messages.append((frame.stamp_ns, "/ground_truth", frame.truth_message))
            image = encode_jpeg(frame.image, frame.header) if compressed else frame.image_message
            messages.append((frame.stamp_ns, "/camera/image", image))
        with BagWriter(tmp_path / name, storage) as bag:
            for at, topic, msg in sorted(messages, key=lambda m: m[0]):
                bag.write(topic, msg, at)
        return tmp_path / name

    return make
