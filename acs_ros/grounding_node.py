"""The lifecycle node `grounding`: camera topics and phrases in, scored boxes out.

ROS callbacks run on the executor and never wait for the model, which has a thread of its own (:mod:`acs_ros.asking`).
Loading blocks only the transition that asked for it, and not the end of the process (:mod:`acs_ros.loading`).
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import Clock, JumpThreshold, TimeJump
from rclpy.clock_type import ClockType
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNodeMixin, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_msgs.msg import String

from acs_core.errors import AcsError, Cancelled, PhraseError
from acs_core.heap import trim_heap
from acs_ros.asking import Asker, describe
from acs_ros.camera_set import CameraSet
from acs_ros.goals import GroundServer
from acs_ros.grounder_source import GrounderLoader, load_grounder
from acs_ros.ledger import Ledger
from acs_ros.loading import ModelLoader
from acs_ros.memory import TRIM_PERIOD_S, resident_bytes
from acs_ros.parameters import change_problem, declare_parameters, read_settings, widen_integers
from acs_ros.qos import OVERRIDABLE, reliable
from acs_ros.queries import show_queries, split_text
from acs_ros.reporter import Reporter
from acs_ros.services import QueryServices
from acs_ros.transitions import never_silent

STOP_TIMEOUT_S = 10.0  # how long freeing the model waits for a running call, which is asked to stop at every token


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
        self.active_since: float | None = None  # steady seconds
        self.reporter = Reporter(self)
        self.cameras = CameraSet(self, lambda: self.settings, self.ledger, self.reporter)
        self.asker = self.cameras.asker = Asker(lambda: self.settings, self.ledger, self.cameras)
        log = self.reporter.log
        self.goals = GroundServer(self, self.asker, self.cameras, self.ledger, lambda: self.settings, log)
        QueryServices(
            self, self.asker, lambda: self.settings, lambda: self.goals.count, self._set_queries, self._hold, log
        )
        # Volatile by default: it hears every reliable publisher. To hear also a phrase latched before the node came,
        # set the parameter qos_overrides./grounding/query.subscription.durability to transient_local.
        self._query_subscription = self.create_subscription(
            String,
            "~/query",
            self._on_query,
            reliable(1),
            callback_group=MutuallyExclusiveCallbackGroup(),
            event_callbacks=self.reporter.input_events("query_qos_problem", "~/query"),
            qos_overriding_options=OVERRIDABLE,
        )
        backwards = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False)
        self._jumps = self.get_clock().create_jump_callback(backwards, post_callback=self._on_jump)
        # A steady clock: with use_sim_time and no /clock, silence is the last thing one needs.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        period, group = self.settings.diagnostics_period, MutuallyExclusiveCallbackGroup()
        self.create_timer(period, self.reporter.publish, callback_group=group, clock=steady)
        self.create_timer(TRIM_PERIOD_S, trim_heap, callback_group=MutuallyExclusiveCallbackGroup(), clock=steady)
        if self.settings.autostart:
            self._start_timer = self.create_timer(0.05, self._start, callback_group=self._transitions, clock=steady)

    # --- lifecycle ---------------------------------------------------------------------------------------------------

    @never_silent
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model; FAILURE (back to unconfigured, configure again) when that does not work."""
        settings, began = self.settings, time.monotonic()
        self.get_logger().info(f"loading {settings.model} (selector {settings.selector}, device {settings.device})")
        self.ledger.note(load_problem="", loading_since=began)
        self.reporter.publish()
        try:
            self.asker.start_with(settings.initial_query)
            grounder = self.loader.get(settings, self._tell_loading)
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
        finally:
            self.ledger.note(loading_since=None)
        if not self.asker.adopt(grounder):
            self.get_logger().info("not configured: the node was closed before the model was there")
            return TransitionCallbackReturn.FAILURE
        self.cameras.make()
        revision = f" of revision {settings.revision}" if settings.revision else ""
        self.cameras.introduce(f"{grounder.selector_name} on {grounder.model_name}{revision}", "class_id is the phrase")
        self.get_logger().info(
            f"{grounder.model_name} is ready on {grounder.device} after {time.monotonic() - began:.1f} s, "
            f"selector {grounder.selector_name}, {resident_bytes() / 1e9:.1f} GB of host memory"
        )
        return super().on_configure(state)

    @never_silent
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the images, as far as they are wanted."""
        self.ledger.new_activation()
        result = super().on_activate(state)
        self.active_since = time.monotonic()
        self.asker.listen()
        self.cameras.open()
        asked = f"asking for {show_queries(self.asker.queries)}" if self.asker.queries else "waiting for a phrase"
        topics = ", ".join(topic for _, topic, _ in self.cameras.inputs)
        self.get_logger().info(f"active ({self.settings.mode}): images from {topics}, {asked}")
        return result

    @never_silent
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening and ask the model to stop; nothing is published afterwards."""
        self._stop_asking("the node was deactivated")
        return super().on_deactivate(state)

    @never_silent
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model. The queries stay."""
        self._free_model()
        return super().on_cleanup(state)

    @never_silent
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and free, from whatever state."""
        self.close()
        return super().on_shutdown(state)

    @never_silent
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Back to unconfigured, with nothing left behind, whatever still fails: anything but SUCCESS here would end in
        *finalized*, from where only a restart of the process helps."""
        steps = (self._free_model, lambda: self.asker.release(0.0), self.cameras.destroy)
        for step in steps:
            try:
                step()
            except Exception as error:
                self.get_logger().error(f"while cleaning up after an error: {describe(error)}")
        self.get_logger().warning("an error ended the transition: the node is unconfigured, configure it again")
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> bool:
        """Stop for good: give up a model that loads, stop the model's thread, let go of the model, take no other.
        False: a thread still loads or asks a model."""
        self.loader.close()
        self._stop_asking("the node stops")
        stopped = self.asker.close(STOP_TIMEOUT_S)
        return stopped and not self.loader.running

    def _free_model(self) -> None:
        before = resident_bytes()
        self._stop_asking("the model is freed")
        if not self.asker.release(STOP_TIMEOUT_S):
            self.get_logger().warning(f"the model did not stop within {STOP_TIMEOUT_S:g} s; it is freed when it does")
        self.cameras.destroy()
        self.get_logger().info(
            f"the model is freed: {before / 1e9:.2f} GB of host memory before, {resident_bytes() / 1e9:.2f} GB now"
        )

    def _start(self) -> None:
        self._start_timer.cancel()
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def _stop_asking(self, reason: str) -> None:
        self.active_since = None
        self.goals.close(reason)  # first: a goal at work would tell that it was asked to stop, and not why
        self.asker.pause(reason)
        self.goals.close(reason)
        self.cameras.close()

    def _tell_loading(self, seconds: float) -> None:
        self.get_logger().info(f"still loading after {seconds:.0f} s, {resident_bytes() / 1e9:.1f} GB of host memory")

    # --- queries, time, parameters -----------------------------------------------------------------------------------

    def _on_query(self, msg: String) -> None:
        try:
            self._set_queries(msg.data)
        except PhraseError:
            return  # noted and logged already; a topic cannot answer

    def _set_queries(self, wanted: str | list[str]) -> None:
        try:
            changed = self.asker.set_queries(split_text(wanted) if isinstance(wanted, str) else wanted)
        except PhraseError as error:
            self.ledger.record("rejected_queries", last_query_problem=str(error))
            self.reporter.log.warning("rejected query", f"query rejected: {error}")
            raise
        else:
            self.ledger.record("queries", last_query_problem="")
            if changed:
                asked = show_queries(self.asker.queries)
                self.reporter.log.info("query", f"asking for {asked}" if asked else "the query was emptied")
        finally:
            self.reporter.changed()

    def _hold(self, on: bool) -> None:
        if on:
            self.goals.close("the node is paused")  # first: one at work would only tell that it was stopped
        self.asker.hold(on)
        if on:
            self.goals.close("the node is paused")
        self.reporter.changed()

    def _on_jump(self, jump: TimeJump) -> None:
        self.cameras.forget()
        seconds = abs(jump.delta.nanoseconds) / 1e9
        self.reporter.clock_jumped(f"the clock jumped back by {seconds:.2f} s: a bag or simulation that began again?")

    def _judge_parameters(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        problem = change_problem({p.name: p.value for p in parameters}, self.state_label != "unconfigured")
        return SetParametersResult(successful=not problem, reason=problem)

    def _take_parameters(self, parameters: list[Parameter[Any]]) -> None:
        self.settings = read_settings(self)
        self.cameras.demand_changed()

    @property
    def inputs(self) -> Sequence[tuple[str, str, float | None]]:
        """Name and image topic of each camera, and since when it is subscribed to, in steady seconds."""
        return self.cameras.inputs

    @property
    def state_label(self) -> str:
        """The lifecycle state: unconfigured, configuring, inactive, activating, active, ..."""
        return str(self._state_machine.current_state[1])
