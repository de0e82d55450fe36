"""The lifecycle node `grounding`: camera topics and phrases in, scored boxes out.

ROS callbacks run on the executor and never wait for the model, which has its own thread
(:mod:`acs_ros.node.inference_worker`). Loading blocks only the transition *configure*, and not the end of the process
(:mod:`acs_ros.node.model_loader`).
"""

from __future__ import annotations

import time
import traceback
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import Clock, JumpThreshold, TimeJump
from rclpy.clock_type import ClockType
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock as ClockMessage
from std_msgs.msg import String

from acs_core.arguments import split_text
from acs_core.errors import AcsError, CalibrationError, Cancelled, PhraseError
from acs_core.heap import trim_heap
from acs_ros.dds import OVERRIDABLE, reliable
from acs_ros.diagnostics.memory import TRIM_PERIOD_S, measure_memory, resident_bytes
from acs_ros.diagnostics.name_watch import NameWatch, nodes_with_parameters
from acs_ros.diagnostics.statistics import NodeStatistics
from acs_ros.diagnostics.status import Input, Situation, StatusLimits, show_queries
from acs_ros.errors import describe
from acs_ros.node.action_server import GroundServer
from acs_ros.node.cameras import CameraSet
from acs_ros.node.given_parameters import GivenParameters
from acs_ros.node.inference_worker import FrameGrounder
from acs_ros.node.lifecycle_bond import LifecycleBond
from acs_ros.node.model_loader import GrounderLoader, ModelLoader, check_precision, load_grounder
from acs_ros.node.parameters import PERIOD, NodeParameters, Settings, declare_updater_parameter, keeps_value
from acs_ros.node.publishers import LabelInfoPublisher
from acs_ros.node.query_manager import QueryManager
from acs_ros.node.remappings import without_effect
from acs_ros.node.reporter import Reporter
from acs_ros.node.services import QueryServices
from acs_ros.rclpy_fixes import PlainLogger, RefusingLifecycleMixin, checked_clock, log_transition_errors

MAX_TRACE = 4000  # characters of a stack trace in the log
NAME_PERIOD_S = 1.0  # between two looks for other nodes of the same name, which also keeps their lines that far apart
STOP_TIMEOUT_S = 10.0  # how long freeing the model waits for a running call, which checks for a stop at each token


class GroundingNode(RefusingLifecycleMixin, Node):
    """The grounding node.

    Args:
        node_name: Name of the node, unless the command line has another.
        load: Makes the grounder from the parameters.
        given: What the command line gives, to tell the parameters for this node from those for several.
        kwargs: Of :class:`rclpy.node.Node`.

    Raises:
        ValueError: a parameter given at start does not exist, has the wrong type or is out of range, or the parameter
            files are for other nodes.
    """

    def __init__(
        self,
        node_name: str = "grounding",
        *,
        load: GrounderLoader = load_grounder,
        given: GivenParameters | None = None,
        **kwargs: Any,
    ) -> None:
        Node.__init__(self, node_name, **kwargs)
        self._given = given or GivenParameters()
        notes = self._given.check(self.get_fully_qualified_name(), self._parameter_overrides)
        # Reentrant, so that get_state answers while configure loads for minutes. Of two transitions at once the state
        # machine refuses the second.
        self._transitions = ReentrantCallbackGroup()
        RefusingLifecycleMixin.__init__(self, callback_group=self._transitions)
        self.parameters = NodeParameters(
            self, lambda: self.state_label != "unconfigured", self._parameters_changed, self._precision_problem
        )
        self.loader = ModelLoader(load)
        self.statistics = NodeStatistics()
        self.active_since: float | None = None  # steady seconds
        self.reporter = Reporter(self, self.statistics, self._situation)
        log = self.reporter.log
        for note in (notes.misspelt, *notes.ignored):
            if note:
                self.get_logger().warning(note)
        self._misspelt = notes.misspelt
        self.statistics.set(setup_problem=notes.misspelt)
        self.cameras = CameraSet(self, self.parameters, self.statistics, self.reporter)
        self.frame_grounder = FrameGrounder(self.parameters, self.statistics, self.cameras, log)
        self.query_manager = QueryManager(self.frame_grounder, self.cameras.demand_changed)
        self.labels = LabelInfoPublisher(self, lambda: self.query_manager.queries, lambda: self._threshold)
        self.bond = LifecycleBond(self, self.settings.bond_heartbeat_period)
        self.goals = GroundServer(self, self.query_manager, self.frame_grounder, self.cameras.why_no_image, log)
        QueryServices(
            self,
            self.query_manager,
            self.parameters,
            lambda: self.goals.count,
            self._set_queries,
            self._hold,
            log,
        )
        # Volatile by default, which fits every reliable publisher. To receive also a phrase latched before the node
        # started, set the parameter qos_overrides./grounding/query.subscription.durability to transient_local.
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
        # A steady clock: the status must be published also with use_sim_time and no /clock.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        period = float(declare_updater_parameter(self, PERIOD, self.settings.diagnostics_period))
        group = MutuallyExclusiveCallbackGroup()
        self.create_timer(period, self.reporter.publish, callback_group=group, clock=steady)
        watch = NameWatch(
            self.get_fully_qualified_name(), lambda: nodes_with_parameters(self), self.statistics, self.get_logger()
        )
        self.create_timer(NAME_PERIOD_S, watch.look, callback_group=MutuallyExclusiveCallbackGroup(), clock=steady)
        self.create_timer(TRIM_PERIOD_S, trim_heap, callback_group=MutuallyExclusiveCallbackGroup(), clock=steady)
        if self.settings.autostart:
            self._start_timer = self.create_timer(0.05, self._start, callback_group=self._transitions, clock=steady)

    def create_subscription(self, msg_type: Any, topic: str, callback: Any, *args: Any, **kwargs: Any) -> Any:
        """Like :meth:`rclpy.node.Node.create_subscription`; times on /clock are checked first
        (:func:`acs_ros.rclpy_fixes.checked_clock`), because rclpy's TimeSource subscribes through this method."""
        if msg_type is ClockMessage:
            callback = checked_clock(callback)
        return super().create_subscription(msg_type, topic, callback, *args, **kwargs)

    def callback_failed(self, name: str, error: Exception) -> None:
        """Count and log an exception out of the callback of the topic, service or timer ``name``. Any thread."""
        problem = f"{name}: {describe(error)}"
        self.statistics.update("callback_errors", last_callback_error=problem)

        def text() -> str:
            trace = "".join(traceback.format_exception(error))[-MAX_TRACE:].encode("utf-8", "backslashreplace").decode()
            return f"a callback failed, the node goes on: {problem}\n{trace}"

        self.reporter.log.warning(f"callback {type(error).__name__}", text)

    # --- lifecycle ---------------------------------------------------------------------------------------------------

    @log_transition_errors
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model; FAILURE (back to unconfigured, configure again) when that does not work."""
        settings, began = self.settings, time.monotonic()
        self.get_logger().info(f"loading {settings.model} (selector {settings.selector}, device {settings.device})")
        self.statistics.set(load_problem="", loading_since=began)
        self.reporter.publish()
        try:
            self.query_manager.start_with(settings.initial_query)
            self.labels.update()
            grounder = self.loader.get(settings, self._tell_loading)
            # With the parameters of now: they may have changed while the model was loaded.
            check_precision(grounder, self.settings.min_precision, self.settings.second_look)
        except Cancelled as error:  # the context may be gone already: log it, and nothing else
            self.get_logger().info(f"not configured: {error}")
            return TransitionCallbackReturn.FAILURE
        except Exception as error:  # a broken model must leave a node that can be configured again
            self.statistics.set(load_problem=describe(error))
            self.get_logger().error(f"cannot configure: {describe(error)}")
            if not isinstance(error, AcsError):
                self.get_logger().error("".join(traceback.format_exception(error)))
            self.reporter.publish()
            return TransitionCallbackReturn.FAILURE
        finally:
            self.statistics.set(loading_since=None)
        if not self.query_manager.adopt(grounder):
            self.get_logger().info("not configured: the node was closed before the model was there")
            return TransitionCallbackReturn.FAILURE
        self.labels.update()  # the threshold of min_precision is known now
        self.cameras.make(self.query_manager.take_frame)
        self._check_remappings()
        revision = f" of revision {grounder.revision}" if grounder.revision else ""
        self.cameras.introduce(f"{grounder.selector_name} on {grounder.model_name}{revision}", "class_id is the phrase")
        self.get_logger().info(
            f"{grounder.model_name}{revision} is ready on {grounder.device} after {time.monotonic() - began:.1f} s, "
            f"selector {grounder.selector_name}, {resident_bytes() / 1e9:.1f} GB of host memory"
        )
        return super().on_configure(state)

    @log_transition_errors
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the images that are wanted."""
        self.statistics.new_activation()
        result = super().on_activate(state)
        self.active_since = time.monotonic()
        self.query_manager.listen()
        self.cameras.open(self.query_manager.wants_frames, lambda: self.query_manager.is_answering)
        self.bond.form()
        asked = (
            f"asking for {show_queries(self.query_manager.queries)}"
            if self.query_manager.queries
            else "waiting for a phrase"
        )
        topics = ", ".join(topic for _, topic, _ in self.cameras.inputs)
        self.get_logger().info(f"active ({self.settings.mode}): images from {topics}, {asked}")
        return result

    @log_transition_errors
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and ask the model to stop; no answer is published afterwards."""
        self.bond.release()
        self._stop_asking("the node was deactivated")
        return super().on_deactivate(state)

    @log_transition_errors
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model. The queries stay."""
        self._free_model()
        return super().on_cleanup(state)

    @log_transition_errors
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and free the model, from any state."""
        self.close()
        return super().on_shutdown(state)

    @log_transition_errors
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Clean up and return to unconfigured even if a step fails: any other result than SUCCESS would lead to
        *finalized*, which only a restart of the process ends."""
        steps = (self.bond.release, self._free_model, lambda: self.query_manager.release(0.0), self.cameras.destroy)
        for step in steps:
            try:
                step()
            except Exception as error:
                self.get_logger().error(f"while cleaning up after an error: {describe(error)}")
        self.get_logger().warning("an error ended the transition: the node is unconfigured, configure it again")
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> bool:
        """Stop for good: give up a model that loads, end the model's thread, free the model, accept no other. Returns
        False if a thread is still loading or running a model."""
        self.bond.release()
        self.loader.close()
        self._stop_asking("the node stops")
        stopped = self.query_manager.close(STOP_TIMEOUT_S)
        return stopped and not self.loader.running

    def destroy_node(self) -> None:
        """Leave DDS at once. rclpy destroys neither the action server nor the state machine with the node; as long as
        they exist, which can be until the next garbage collection, the node stays in the graph of a process that goes
        on."""
        if hasattr(self, "goals"):  # false in a node whose parameters were refused
            self.goals.destroy()
        super().destroy_node()
        if hasattr(self, "_state_machine"):
            self._state_machine.destroy_when_not_in_use()

    def set_parameters_atomically(self, parameter_list: list[Parameter[Any]]) -> SetParametersResult:
        """Like :meth:`rclpy.node.Node.set_parameters_atomically`, which the parameter services call; parameters that
        keep their value are left out first. So a file of ``ros2 param dump`` loads onto a configured node, although
        rclpy refuses to set a read-only parameter to the value that it has."""
        changed = [p for p in parameter_list if not keeps_value(self, p)]
        if parameter_list and not changed:
            return SetParametersResult(successful=True)
        return super().set_parameters_atomically(changed)

    def _precision_problem(self, precision: float, second_look: bool) -> str:
        grounder = self.frame_grounder.grounder
        if grounder is None:
            return ""  # checked when the model is there
        try:
            check_precision(grounder, precision, second_look)
        except CalibrationError as error:
            return str(error)
        return ""

    @property
    def _threshold(self) -> float:
        """The score below which nothing is published: that of min_score or min_precision, whichever is larger."""
        settings, grounder = self.settings, self.frame_grounder.grounder
        if not settings.min_precision or grounder is None:
            return settings.min_score
        return max(settings.min_score, grounder.required_score(settings.min_precision, settings.second_look))

    def _parameters_changed(self) -> None:
        self.cameras.demand_changed()
        self.labels.update()

    def _free_model(self) -> None:
        before = resident_bytes()
        self._stop_asking("the model is freed")
        if not self.query_manager.release(STOP_TIMEOUT_S):
            self.get_logger().warning(f"the model did not stop within {STOP_TIMEOUT_S:g} s; it is freed when it does")
        self.cameras.destroy()
        self.get_logger().info(
            f"the model is freed: {before / 1e9:.2f} GB of host memory before, {resident_bytes() / 1e9:.2f} GB now"
        )

    def _check_remappings(self) -> None:
        """Warn of remapping rules that match nothing, once all topics are made."""
        problem = without_effect(self._given.remappings, self, self.cameras.input_topics)
        if problem:
            self.get_logger().warning(problem)
        self.statistics.set(setup_problem="; ".join(filter(None, (self._misspelt, problem))))

    def _start(self) -> None:
        self._start_timer.cancel()
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def _stop_asking(self, reason: str) -> None:
        self.active_since = None
        self.goals.close(reason)  # first: a running goal would report that it was asked to stop, and not why
        self.query_manager.pause(reason)
        self.goals.close(reason)
        self.cameras.close()

    def _tell_loading(self, seconds: float) -> None:
        self.get_logger().info(f"still loading after {seconds:.0f} s, {resident_bytes() / 1e9:.1f} GB of host memory")

    # --- queries, time, parameters -----------------------------------------------------------------------------------

    def get_logger(self) -> Any:
        """The node's logger, which replaces control characters."""
        return PlainLogger(super().get_logger())

    def _on_query(self, msg: String) -> None:
        try:
            self._set_queries(msg.data)
        except PhraseError:
            return  # counted and logged already; a topic has no response

    def _set_queries(self, wanted: str | list[str]) -> None:
        try:
            changed = self.query_manager.set_queries(split_text(wanted) if isinstance(wanted, str) else wanted)
        except PhraseError as error:
            self.statistics.update("rejected_queries", last_query_problem=str(error))
            self.reporter.log.warning("rejected query", f"query rejected: {error}")
            raise
        else:
            self.statistics.update("queries", last_query_problem="")
            self.labels.update()
            if changed:
                asked = show_queries(self.query_manager.queries)
                self.reporter.log.info("query", f"asking for {asked}" if asked else "the query was emptied")
        finally:
            self.reporter.changed()

    def _hold(self, on: bool) -> None:
        if on:
            self.goals.close("the node is paused")  # first: a running goal would only report that it was stopped
        self.query_manager.hold(on)
        if on:
            self.goals.close("the node is paused")
        self.reporter.changed()

    def _on_jump(self, jump: TimeJump) -> None:
        self.cameras.forget()
        seconds = abs(jump.delta.nanoseconds) / 1e9
        self.reporter.clock_jumped(f"the clock jumped back by {seconds:.2f} s: a bag or simulation that began again?")

    # --- status ------------------------------------------------------------------------------------------------------

    def _situation(self) -> Situation:
        """What the status says besides the counters."""
        settings, grounder, inputs = self.settings, self.frame_grounder.grounder, self.cameras.inputs
        return Situation(
            state=self.state_label,
            queries=self.query_manager.queries,
            inputs=tuple(
                Input(
                    topic,
                    self.count_publishers(topic),
                    self.statistics.last_image_of(name),
                    since,
                    name,
                    since is not None,
                    self.cameras.other_type(name),
                    self.cameras.other_transport(name),
                )
                for name, topic, since in inputs
            ),
            query_topic=self.resolve_topic_name("~/query"),
            image_timeout=settings.image_timeout,
            model=grounder.model_name if grounder else settings.model,
            selector=grounder.selector_name if grounder else settings.selector,
            device=str(grounder.device) if grounder else settings.device,
            now=time.monotonic(),
            active_since=self.active_since,
            mode=settings.mode,
            held=self.query_manager.held,
            listening=any(since is not None for _, _, since in inputs),
            no_clock=bool(self.get_parameter("use_sim_time").value) and self.get_clock().now().nanoseconds == 0,
            rates=self.statistics.rates([name for name, _, _ in inputs]),
            memory=measure_memory(),
            limits=StatusLimits(
                settings.hang_after,
                settings.warn_input_rate,
                settings.warn_answer_rate,
                settings.warn_latency,
                settings.warn_unparseable,
                settings.warn_host_memory,
                settings.warn_gpu_memory,
            ),
        )

    @property
    def settings(self) -> Settings:
        """The present values of the parameters."""
        return self.parameters.current

    @property
    def state_label(self) -> str:
        """The lifecycle state: unconfigured, configuring, inactive, activating, active, ..."""
        return str(self._state_machine.current_state[1])
