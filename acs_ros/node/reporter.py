"""Publishes the status on /diagnostics, writes throttled log lines, and reports connections of incompatible QoS."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import qos_policy_name_from_kind

from acs_ros.diagnostics.statistics import WINDOW_S, NodeStatistics, StatisticsSnapshot
from acs_ros.diagnostics.status import Situation, make_status, silence_of
from acs_ros.node.parameters import USE_FQN, declare_updater_parameter
from acs_ros.rclpy_fixes import ThrottledLogger

SOON_S = 0.1  # the shortest time between two diagnostics that changes cause


class Reporter:
    """Publishes the status of ``node``.

    Args:
        node: The node.
        statistics: Its counters.
        situation: Returns the rest of the status; called for each message on /diagnostics, on any thread.

    Attributes:
        log: Throttled logger, for lines that may come at camera rate.
    """

    def __init__(self, node: Node, statistics: NodeStatistics, situation: Callable[[], Situation]) -> None:
        self._node, self._statistics, self._situation = node, statistics, situation
        self._use_fqn = bool(declare_updater_parameter(node, USE_FQN, False))
        self._publisher = self._node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.log = ThrottledLogger(self._node.get_logger())
        self._clock_problem_at = 0.0
        self._lock = threading.Lock()
        self._published_at = float("-inf")
        self._silent: dict[str, str] = {}  # topic of a camera -> why the log says that no image comes
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        group = MutuallyExclusiveCallbackGroup()
        self._soon = self._node.create_timer(SOON_S, self._tell_late, callback_group=group, clock=steady)
        self._soon.cancel()

    def changed(self) -> None:
        """Publish the status after a change of the queries: at once, or for a flood of changes once per SOON_S, with
        the newest."""
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
        """Publish the status now."""
        with self._lock:
            self._published_at = time.monotonic()
        array = DiagnosticArray()
        # The stamp first: the status then holds everything that happened before it, whichever thread publishes it.
        array.header.stamp = self._node.get_clock().now().to_msg()
        facts, situation = self._statistics.snapshot(), self._situation()
        array.status = [make_status(self._node.get_fully_qualified_name(), facts, situation, self._use_fqn)]
        self._publisher.publish(array)
        self._log_silence(facts, situation)
        if self._clock_problem_at and time.monotonic() - self._clock_problem_at > WINDOW_S:
            self._clock_problem_at = 0.0
            self._statistics.set(clock_problem="")

    def _log_silence(self, facts: StatisticsSnapshot, at: Situation) -> None:
        """Log once that no image of a camera comes, and again when the reason changes or images come again."""
        with self._lock:
            for camera in at.inputs:
                before, found = self._silent.get(camera.topic, ""), silence_of(camera, facts, at)
                now = found[1] if found is not None else ""
                # Of a camera that is not listened to any more nothing is known: no line, and none about its images.
                unknown = not now and not (at.state == "active" and camera.listening)
                # A line that was throttled is written later, if it still holds.
                if now == before or unknown or self._tell_silence(camera.topic, now):
                    self._silent[camera.topic] = now

    def _tell_silence(self, topic: str, why: str) -> bool:
        if why:
            return self.log.warning(f"silence of {topic}", why)
        return self.log.info(f"end of the silence of {topic}", f"images come on {topic} again")

    def clock_jumped(self, problem: str) -> None:
        """Report a jump of the node's clock, for WINDOW_S seconds."""
        self._clock_problem_at = time.monotonic()
        self._statistics.update("clock_jumps", clock_problem=problem)
        self.log.warning("clock", problem)

    def input_events(self, fact: str, topic: str) -> SubscriptionEventCallbacks:
        """Event callbacks of a subscription that set the statistic ``fact`` (``query_qos_problem``) when a publisher's
        QoS does not fit."""
        return self._input_events(topic, lambda problem: self._statistics.set(**{fact: problem}))

    def camera_events(self, camera: str, fact: str, topic: str) -> SubscriptionEventCallbacks:
        """Event callbacks of a subscription of a camera that set its ``fact`` (``image_qos``, ``depth_qos``)."""
        return self._input_events(topic, lambda problem: self._statistics.set_camera(camera, **{fact: problem}))

    def _input_events(self, topic: str, tell: Callable[[str], None]) -> SubscriptionEventCallbacks:
        who = f"a publisher on {self._node.resolve_topic_name(topic)} offers"
        return SubscriptionEventCallbacks(
            incompatible_qos=lambda e: self._mismatch(tell, who, topic, "subscription", e)
        )

    def output_events(self, topic: str) -> PublisherEventCallbacks:
        """Event callbacks of the publisher of ``topic`` that set ``output_qos_problem``."""
        who = f"a subscriber of {self._node.resolve_topic_name(topic)} requests"
        return PublisherEventCallbacks(
            incompatible_qos=lambda e: self._mismatch(
                lambda problem: self._statistics.set(output_qos_problem=problem), who, topic, "publisher", e
            )
        )

    def _mismatch(self, tell: Callable[[str], None], who: str, topic: str, side: str, event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        name = f"qos_overrides.{self._node.resolve_topic_name(topic)}.{side}.{policy.lower()}"
        problem = (
            f"{who} an incompatible QoS ({policy}); the two sides are not connected: change that side, "
            f"or start this node with the parameter {name}"
        )
        tell(problem)
        self.log.warning(f"qos of {topic}", problem)
