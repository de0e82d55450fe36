"""The node's mouth on /diagnostics and in the log, and its ear for connections that cannot work (incompatible QoS)."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, Protocol

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import qos_policy_name_from_kind

from acs_ros.asking import Asker
from acs_ros.diagnostics import Input, Limits, Situation, make_status
from acs_ros.ledger import WINDOW_S, Ledger
from acs_ros.memory import measure_memory
from acs_ros.parameters import Settings
from acs_ros.sparing import SparingLogger

SOON_S = 0.1  # the shortest time between two diagnostics that changes cause


class Reported(Protocol):
    """What is reported on."""

    settings: Settings
    asker: Asker
    ledger: Ledger
    active_since: float | None  # steady seconds

    @property
    def state_label(self) -> str:
        """The lifecycle state."""

    @property
    def inputs(self) -> Sequence[tuple[str, str, float | None]]:
        """Name and image topic of each camera, and since when it is subscribed to, in steady seconds."""


class Reporter:
    """Publishes ``node``'s status. ``log`` is for what may come in a flood."""

    def __init__(self, node: Any) -> None:
        self._node: Node = node
        self._about: Reported = node
        self._publisher = self._node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.query_topic = self._node.resolve_topic_name("~/query")
        self.log = SparingLogger(self._node.get_logger())
        self._clock_problem_at = 0.0
        self._lock = threading.Lock()
        self._published_at = float("-inf")
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        group = MutuallyExclusiveCallbackGroup()
        self._soon = self._node.create_timer(SOON_S, self._tell_late, callback_group=group, clock=steady)
        self._soon.cancel()

    def changed(self) -> None:
        """Something was asked of the node: say what it does now, at once or, when changes come in a flood, after the
        newest of each SOON_S."""
        with self._lock:
            at_once = time.monotonic() - self._published_at >= SOON_S
            if not at_once and self._soon.is_canceled():
                self._soon.reset()
        if at_once:
            self.publish()

    def _tell_late(self) -> None:
        with self._lock:
            self._soon.cancel()
        self.publish()

    def publish(self) -> None:
        """Say what the node does and, if nothing comes out, why."""
        with self._lock:
            self._published_at = time.monotonic()
        array = DiagnosticArray()
        # First of all: what happened before the stamp is in the status, whichever thread tells it.
        array.header.stamp = self._node.get_clock().now().to_msg()
        array.status = [
            make_status(self._node.get_fully_qualified_name(), self._about.ledger.facts(), self._situation())
        ]
        self._publisher.publish(array)
        if self._clock_problem_at and time.monotonic() - self._clock_problem_at > WINDOW_S:
            self._clock_problem_at = 0.0
            self._about.ledger.note(clock_problem="")

    def _situation(self) -> Situation:
        about, settings = self._about, self._about.settings
        grounder, inputs = about.asker.grounder, about.inputs
        return Situation(
            state=about.state_label,
            queries=about.asker.queries,
            inputs=tuple(
                Input(topic, self._node.count_publishers(topic), about.ledger.last_image_of(name), since)
                for name, topic, since in inputs
            ),
            query_topic=self.query_topic,
            image_timeout=settings.image_timeout,
            model=grounder.model_name if grounder else settings.model,
            selector=grounder.selector_name if grounder else settings.selector,
            device=str(grounder.device) if grounder else settings.device,
            now=time.monotonic(),
            active_since=about.active_since,
            mode=settings.mode,
            held=about.asker.held,
            listening=any(since is not None for _, _, since in inputs),
            rates=about.ledger.rates([name for name, _, _ in inputs]),
            memory=measure_memory(),
            limits=Limits(
                settings.hang_after,
                settings.warn_input_rate,
                settings.warn_answer_rate,
                settings.warn_latency,
                settings.warn_unparseable,
                settings.warn_host_memory,
                settings.warn_gpu_memory,
            ),
        )

    def clock_jumped(self, problem: str) -> None:
        """The node's own clock jumped; said for WINDOW_S."""
        self._clock_problem_at = time.monotonic()
        self._about.ledger.record("clock_jumps", clock_problem=problem)
        self.log.warning("clock", problem)

    def input_events(self, fact: str, topic: str) -> SubscriptionEventCallbacks:
        """For a subscription: a mismatch is noted as ``fact`` (``image_qos_problem``, ``query_qos_problem``)."""
        who = f"a publisher on {self._node.resolve_topic_name(topic)} offers"
        return SubscriptionEventCallbacks(incompatible_qos=lambda e: self._mismatch(fact, who, topic, e))

    def output_events(self, topic: str) -> PublisherEventCallbacks:
        """For the publisher of ``topic``."""
        who = f"a subscriber of {self._node.resolve_topic_name(topic)} requests"
        return PublisherEventCallbacks(incompatible_qos=lambda e: self._mismatch("output_qos_problem", who, topic, e))

    def _mismatch(self, fact: str, who: str, topic: str, event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        side = "publisher" if fact == "output_qos_problem" else "subscription"
        name = f"qos_overrides.{self._node.resolve_topic_name(topic)}.{side}.{policy.lower()}"
        problem = (
            f"{who} an incompatible QoS ({policy}); the two sides are not connected: change that side, "
            f"or start this node with the parameter {name}"
        )
        self._about.ledger.note(**{fact: problem})
        self.log.warning(f"qos of {topic}", problem)
