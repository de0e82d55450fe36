"""The node's mouth on /diagnostics, and its ear for connections that cannot work (incompatible QoS)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import qos_policy_name_from_kind

from acs_ros.asking import Asker
from acs_ros.diagnostics import Ledger, Situation, make_status
from acs_ros.parameters import Settings


class Reporter:
    """Publishes ``node``'s status. ``state`` and ``settings`` are called for every message."""

    def __init__(
        self, node: Node, ledger: Ledger, asker: Asker, state: Callable[[], str], settings: Callable[[], Settings]
    ) -> None:
        self._node, self._ledger, self._asker = node, ledger, asker
        self._state, self._settings = state, settings
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.image_topic = node.resolve_topic_name("~/image")
        self.query_topic = node.resolve_topic_name("~/query")
        self.active_since: float | None = None  # steady seconds

    def publish(self) -> None:
        """Say what the node does and, if nothing comes out, why."""
        grounder, settings = self._asker.grounder, self._settings()
        at = Situation(
            state=self._state(),
            query=self._asker.query,
            image_topic=self.image_topic,
            query_topic=self.query_topic,
            image_publishers=self._node.count_publishers(self.image_topic),
            image_timeout=settings.image_timeout,
            model=grounder.model_name if grounder else settings.model,
            selector=grounder.selector_name if grounder else settings.selector,
            device=str(grounder.device) if grounder else settings.device,
            now=time.monotonic(),
            active_since=self.active_since,
        )
        status = make_status(self._node.get_fully_qualified_name(), self._ledger.facts(), at)
        array = DiagnosticArray(status=[status])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)

    def image_events(self) -> SubscriptionEventCallbacks:
        """For the subscription to the images."""
        return SubscriptionEventCallbacks(
            incompatible_qos=lambda e: self._mismatch(
                "image_qos_problem", f"a publisher on {self.image_topic} offers", e
            )
        )

    def query_events(self) -> SubscriptionEventCallbacks:
        """For the subscription to the queries."""
        return SubscriptionEventCallbacks(
            incompatible_qos=lambda e: self._mismatch(
                "query_qos_problem", f"a publisher on {self.query_topic} offers", e
            )
        )

    def output_events(self, topic: str) -> PublisherEventCallbacks:
        """For the publisher of ``topic``."""
        who = f"a subscriber of {self._node.resolve_topic_name(topic)} requests"
        return PublisherEventCallbacks(incompatible_qos=lambda e: self._mismatch("output_qos_problem", who, e))

    def _mismatch(self, fact: str, who: str, event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        problem = f"{who} an incompatible QoS ({policy}); the two sides are not connected"
        self._ledger.note(**{fact: problem})
        self._node.get_logger().warning(problem)
