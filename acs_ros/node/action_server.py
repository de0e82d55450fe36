"""The action ~/ground: accepts goals, aborts those it cannot take with a reason, and ends all when the node stops."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

from acs_msgs.action import Ground
from action_msgs.msg import GoalStatus
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node

from acs_core.arguments import clean_phrase
from acs_core.errors import AcsError
from acs_ros.conversions.detections import region_from_message
from acs_ros.dds import SERVICE
from acs_ros.errors import describe
from acs_ros.node.ground_goal import ABORTED, CANCELED, GroundGoal, goal_id
from acs_ros.node.inference_worker import FrameGrounder
from acs_ros.node.parameters import Settings
from acs_ros.node.query_manager import QueryManager
from acs_ros.rclpy_fixes import ThrottledLogger, action_name


class GroundServer:
    """The action server, and the goals that are not finished.

    Args:
        node: The node that serves ~/ground.
        query_manager: Gets the goals that can be taken.
        frame_grounder: Grounds the frames of the goals.
        why_no_image: Returns why no frame of a camera came, for a goal that waited in vain.
        log: Throttled logger.
    """

    def __init__(
        self,
        node: Node,
        query_manager: QueryManager,
        frame_grounder: FrameGrounder,
        why_no_image: Callable[[str], str],
        log: ThrottledLogger,
    ) -> None:
        self._query_manager, self._frame_grounder = query_manager, frame_grounder
        self._why_no_image, self._log = why_no_image, log
        self._lock = threading.Lock()
        self._open: list[GroundGoal] = []
        self._cancelled_early: set[bytes] = set()
        self._server = ActionServer(
            node,
            Ground,
            action_name(node, "~/ground"),
            execute_callback=lambda handle: Ground.Result(),  # replaced by GroundGoal for each goal
            goal_callback=lambda request: GoalResponse.ACCEPT,  # a refusal carries no reason, an abort does
            handle_accepted_callback=self._accepted,
            cancel_callback=self._cancel,
            callback_group=ReentrantCallbackGroup(),
            goal_service_qos_profile=SERVICE,
            result_service_qos_profile=SERVICE,
            cancel_service_qos_profile=SERVICE,
        )

    @property
    def count(self) -> int:
        """How many goals wait or run."""
        with self._lock:
            return len(self._open)

    def close(self, reason: str) -> None:
        """Abort all goals that wait or run."""
        with self._lock:
            goals, self._open = list(self._open), []
        for goal in goals:
            goal.finish(ABORTED, reason)  # first: the model's thread, once asked to stop, would give another reason
            self._query_manager.withdraw(goal)

    def destroy(self) -> None:
        """Remove the server from its node, whose handle it would keep."""
        self._server.destroy()

    def give_up(self, goal: GroundGoal, reason: str) -> None:
        """Abort a waiting goal; a running one goes on."""
        goal.overdue = reason  # for _hand_over: the query manager may not have it yet
        if self._query_manager.withdraw(goal, stop=False):
            goal.finish(ABORTED, reason)

    def forget(self, goal: GroundGoal) -> None:
        """Remove a finished goal from the open goals."""
        with self._lock:
            self._cancelled_early.discard(goal.id)
            if goal in self._open:
                self._open.remove(goal)

    def _accepted(self, handle: Any) -> None:
        self._frame_grounder.statistics.increment("goals")
        goal = GroundGoal(handle, self._frame_grounder, self._log, give_up=self.give_up, forget=self.forget)
        try:
            self._take(goal)
        except Exception as error:
            goal.finish(ABORTED, describe(error))  # or its client would wait for ever
            raise

    def _take(self, goal: GroundGoal) -> None:
        settings = self._frame_grounder.parameters.current
        with self._lock:
            full = len(self._open) >= settings.max_goals
            if not full:
                self._open.append(goal)
            cancelled = goal.id in self._cancelled_early
        if cancelled:
            goal.finish(CANCELED, "canceled")
            return
        problem = f"{settings.max_goals} goals wait already (max_goals)" if full else goal_problem(goal, settings)
        if not problem:
            problem = self._begin(goal)
        if problem:
            goal.finish(ABORTED, problem)

    def _begin(self, goal: GroundGoal) -> str:
        picture = goal.picture
        if picture is not None:
            goal.take_frame(picture)
            return self._hand_over(goal, has_picture=True)
        settings = self._frame_grounder.parameters.current
        wait = settings.image_timeout
        if goal.request.deadline > 0:
            wait = min(wait, goal.request.deadline)
        # Before the goal is handed over: a frame that comes at once stops this timer.
        goal.end_after(wait, lambda: f"no image came within {wait:g} s: {self._why_no_image(goal.camera)}")
        return self._hand_over(goal, has_picture=False)

    def _hand_over(self, goal: GroundGoal, has_picture: bool) -> str:
        problem = self._query_manager.take_goal(goal, has_picture)
        if not problem and goal.overdue:  # its time was over before it could be withdrawn
            self.give_up(goal, goal.overdue)
        return problem

    def _cancel(self, handle: Any) -> CancelResponse:
        with self._lock:
            goal = next((g for g in self._open if g.id == goal_id(handle)), None)
            early = goal is None and handle.status == GoalStatus.STATUS_ACCEPTED
            if early:  # rclpy answers the client before it calls _accepted
                self._cancelled_early.add(goal_id(handle))
        if goal is None:
            return CancelResponse.ACCEPT if early else CancelResponse.REJECT
        # Ended first: the model's thread, once asked to stop, would end it as aborted; and the client must not wait for
        # a model that does not stop at once.
        if not goal.finish(CANCELED, "canceled") and not goal.cancelled:
            return CancelResponse.REJECT  # its answer has just been sent
        self._query_manager.withdraw(goal)
        return CancelResponse.ACCEPT


def goal_problem(goal: GroundGoal, settings: Settings) -> str:
    """Why the goal cannot be taken, or an empty string."""
    request = goal.request
    try:
        clean_phrase(request.phrase, settings.max_phrase_chars)
        if goal.picture is not None:
            goal.picture.check(settings.max_image_pixels, settings.accept_16uc1)
        region_from_message(request.region)
    except AcsError as error:
        return str(error)
    if goal.camera not in settings.camera_names:
        known = ", ".join(map(repr, filter(None, settings.camera_names))) or "none: leave the goal's camera empty"
        return f"there is no camera {goal.camera[:40]!r}: the parameter cameras names {known}"
    if not (math.isfinite(request.deadline) and request.deadline >= 0):
        return f"deadline must be 0 (none) or more seconds, got {request.deadline}"
    if not (math.isfinite(request.min_score) and request.min_score <= 1):
        return f"min_score must be at most 1 (negative: the node's own), got {request.min_score}"
    if request.samples > 256:
        return f"samples must be at most 256 (0: the node's own), got {request.samples}"
    return ""
