"""The lifecycle node `grounding`: a camera topic and a phrase in, scored boxes out.

ROS callbacks run on the executor and never wait for the model, which has a thread of its own (:mod:`acs_ros.asking`).
Loading blocks only the transition that asked for it, and not the end of the process (:mod:`acs_ros.loading`).
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import rclpy
from acs_msgs.msg import CandidateArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNodeMixin, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import Image
from std_msgs.msg import String
from vision_msgs.msg import Detection2DArray

from acs_core.errors import AcsError, Cancelled, ImageError, PhraseError
from acs_ros.asking import Answer, Asker, Outlet, describe
from acs_ros.dds import apply_profile
from acs_ros.diagnostics import Ledger
from acs_ros.grounder_source import GrounderLoader, load_grounder
from acs_ros.loading import ModelLoader
from acs_ros.parameters import change_problem, declare_parameters, read_settings, widen_integers
from acs_ros.reporter import Reporter
from acs_ros.spinning import spin

STOP_TIMEOUT_S = 10.0  # how long freeing the model waits for a running call, which is asked to stop at every token
LOG_PERIOD_S = 5.0  # a stream of bad frames writes one line per this many seconds
Transition = Callable[[Any, LifecycleState], TransitionCallbackReturn]
_OVERRIDABLE = QoSOverridingOptions((QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY, QoSPolicyKind.DEPTH))


def _reliable(depth: int) -> QoSProfile:
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE)


def _never_silent(transition: Transition) -> Transition:
    """rclpy turns an exception in a transition into ERROR without a word; this one says what it was."""

    @functools.wraps(transition)
    def guarded(self: GroundingNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(self, state)
        except Exception as error:
            self.get_logger().error(f"{transition.__name__} failed: {''.join(traceback.format_exception(error))}")
            return TransitionCallbackReturn.ERROR

    return guarded


class GroundingNode(LifecycleNodeMixin, Node):
    """The node. ``load`` makes the grounder from the parameters; keywords go to :class:`rclpy.node.Node`.

    Raises:
        ValueError: a parameter given at start has the wrong type or is out of range.
    """

    def __init__(self, node_name: str = "grounding", *, load: GrounderLoader = load_grounder, **kwargs: Any) -> None:
        Node.__init__(self, node_name, **kwargs)
        # Reentrant, so that the state can be asked while a configure loads for minutes. Two transitions at once are
        # kept apart by the state machine itself, which refuses the second.
        self._transitions = ReentrantCallbackGroup()
        LifecycleNodeMixin.__init__(self, callback_group=self._transitions)
        declare_parameters(self)
        self.settings = read_settings(self)
        self.add_pre_set_parameters_callback(widen_integers)
        self.add_on_set_parameters_callback(self._judge_parameters)
        self.add_post_set_parameters_callback(self._take_parameters)
        self.loader = ModelLoader(load)
        self.ledger = Ledger()
        self.asker = Asker(
            lambda: self.settings, self.ledger, Outlet(self._publish, self._complain, self._debug_wanted)
        )
        self.reporter = Reporter(self, self.ledger, self.asker, lambda: self.state_label, lambda: self.settings)
        self._image_subscription: Subscription[Image] | None = None
        self._make_outputs()
        # Volatile by default: it hears every reliable publisher. To hear also a phrase latched before the node came,
        # set the parameter qos_overrides./grounding/query.subscription.durability to transient_local.
        self._query_subscription = self.create_subscription(
            String,
            "~/query",
            self._on_query,
            _reliable(1),
            callback_group=MutuallyExclusiveCallbackGroup(),
            event_callbacks=self.reporter.query_events(),
            qos_overriding_options=_OVERRIDABLE,
        )
        # A steady clock: with use_sim_time and no /clock, silence is the last thing one needs.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        period, group = self.settings.diagnostics_period, MutuallyExclusiveCallbackGroup()
        self.create_timer(period, self.reporter.publish, callback_group=group, clock=steady)
        if self.settings.autostart:
            self._start_timer = self.create_timer(0.05, self._start, callback_group=self._transitions, clock=steady)

    def _make_outputs(self) -> None:
        def make(kind: Any, topic: str, depth: int) -> Any:
            events = self.reporter.output_events(topic)
            return self.create_lifecycle_publisher(kind, topic, _reliable(depth), event_callbacks=events)

        self._detections = make(Detection2DArray, "~/detections", 10)
        self._candidates = make(CandidateArray, "~/candidates", 10)
        self._debug = make(Image, "~/debug_image", 1)

    # --- lifecycle ---------------------------------------------------------------------------------------------------

    @_never_silent
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model; FAILURE (back to unconfigured, configure again) when that does not work."""
        settings, began = self.settings, time.monotonic()
        self.get_logger().info(f"loading {settings.model} (selector {settings.selector}, device {settings.device})")
        self.ledger.note(load_problem="")
        self.reporter.publish()
        try:
            self.asker.start_with(settings.initial_query)
            grounder = self.loader.get(settings)
        except Cancelled as error:  # the context may be gone already: say it, and touch nothing else
            self.get_logger().info(f"not configured: {error}")
            return TransitionCallbackReturn.FAILURE
        except Exception as error:  # a broken model must leave a node that can be configured again
            self.ledger.note(load_problem=describe(error))
            self.get_logger().error(f"cannot configure: {describe(error)}")
            if not isinstance(error, AcsError):
                self.get_logger().error("".join(traceback.format_exception(error)))
            self.reporter.publish()
            return TransitionCallbackReturn.FAILURE
        if not self.asker.adopt(grounder):
            self.get_logger().info("not configured: the node was closed before the model was there")
            return TransitionCallbackReturn.FAILURE
        took = time.monotonic() - began
        self.get_logger().info(
            f"{grounder.model_name} is ready on {grounder.device} after {took:.1f} s, selector {grounder.selector_name}"
        )
        return super().on_configure(state)

    @_never_silent
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the images."""
        self.ledger.new_activation()
        result = super().on_activate(state)
        self.reporter.active_since = time.monotonic()
        self.asker.listen()
        self._image_subscription = self.create_subscription(
            Image,
            "~/image",
            self._on_image,
            QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
            callback_group=MutuallyExclusiveCallbackGroup(),
            event_callbacks=self.reporter.image_events(),
            qos_overriding_options=_OVERRIDABLE,
        )
        asked = f"asking for {self.asker.query!r}" if self.asker.query else "waiting for a phrase"
        self.get_logger().info(f"active: images from {self.reporter.image_topic}, {asked}")
        return result

    @_never_silent
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening and ask the model to stop; nothing is published afterwards."""
        self._stop_asking()
        return super().on_deactivate(state)

    @_never_silent
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model. The query stays."""
        self._free_model()
        return super().on_cleanup(state)

    @_never_silent
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and free, from whatever state."""
        self.close()
        return super().on_shutdown(state)

    @_never_silent
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Back to unconfigured, with nothing left behind."""
        self._free_model()
        return super().on_error(state)

    def close(self) -> bool:
        """Stop for good: give up a model that loads, stop the model's thread, let go of the model, take no other.
        False: a thread still loads or asks a model."""
        self.loader.close()
        self._stop_asking()
        stopped = self.asker.close(STOP_TIMEOUT_S)
        return stopped and not self.loader.running

    def _free_model(self) -> None:
        self._stop_asking()
        if not self.asker.release(STOP_TIMEOUT_S):
            self.get_logger().warning(f"the model did not stop within {STOP_TIMEOUT_S:g} s; it is freed when it does")

    def _start(self) -> None:
        self._start_timer.cancel()
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def _stop_asking(self) -> None:
        self.asker.pause()
        self.reporter.active_since = None
        subscription, self._image_subscription = self._image_subscription, None
        if subscription is not None:
            self.destroy_subscription(subscription)

    # --- topics ------------------------------------------------------------------------------------------------------

    def _on_image(self, msg: Image) -> None:
        try:
            self.asker.take_frame(msg)
        except ImageError as error:
            self.ledger.image_came(str(error))
            # One call per kind of complaint: rclpy throttles by the place of the call.
            text = f"image on {self.reporter.image_topic} dropped: {error}"
            self.get_logger().warning(text, throttle_duration_sec=LOG_PERIOD_S)
        else:
            self.ledger.image_came()

    def _on_query(self, msg: String) -> None:
        try:
            changed = self.asker.take_query(msg.data)
        except PhraseError as error:
            self.ledger.count("rejected_queries")
            self.ledger.note(last_query_problem=str(error))
            self.get_logger().warning(f"query rejected: {error}", throttle_duration_sec=LOG_PERIOD_S)
        else:
            self.ledger.note(last_query_problem="")
            if changed:
                query = self.asker.query
                self.get_logger().info(f"asking for {query!r}" if query else "the query was emptied")
        self.reporter.publish()

    def _publish(self, answer: Answer) -> None:
        # Candidates first: who waits for the detections then has their circumstances at hand.
        self._candidates.publish(answer.candidates)
        self._detections.publish(answer.detections)
        if answer.debug is not None:
            self._debug.publish(answer.debug)

    def _complain(self, problem: str) -> None:
        self.get_logger().warning(problem, throttle_duration_sec=LOG_PERIOD_S)

    def _debug_wanted(self) -> bool:
        return self._debug.get_subscription_count() > 0

    # --- parameters --------------------------------------------------------------------------------------------------

    def _judge_parameters(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        problem = change_problem({p.name: p.value for p in parameters}, self.state_label != "unconfigured")
        return SetParametersResult(successful=not problem, reason=problem)

    def _take_parameters(self, parameters: list[Parameter[Any]]) -> None:
        self.settings = read_settings(self)

    @property
    def state_label(self) -> str:
        """The lifecycle state: unconfigured, configuring, inactive, activating, active, ..."""
        return str(self._state_machine.current_state[1])


def main(args: list[str] | None = None) -> int:
    """Run the node until Ctrl-C or SIGTERM. Exit code 2 for unusable parameters."""
    apply_profile()
    rclpy.init(args=args)
    try:
        node = GroundingNode()
    except ValueError as error:
        print(f"grounding: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    executor = MultiThreadedExecutor(num_threads=4)
    executor.add_node(node)
    stopped = True
    try:
        with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):  # how it is meant to end
            spin(executor)
    finally:
        print("grounding: stopping", file=sys.stderr)
        stopped = node.close()
        executor.shutdown(timeout_sec=STOP_TIMEOUT_S)
        node.destroy_node()
        rclpy.try_shutdown()
    if not stopped:
        # Python would tear torch down under the thread that is in the middle of it, which can crash or hang.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
