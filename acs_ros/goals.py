"""The action ~/ground: takes goals, refuses none without words, and ends them when the node stops."""

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

from acs_core.errors import AcsError
from acs_core.phrase import clean_phrase
from acs_ros.asking import Asker
from acs_ros.camera_set import CameraSet
from acs_ros.ground_goal import ABORTED, CANCELED, GroundGoal, goal_id
from acs_ros.ledger import Ledger
from acs_ros.parameters import Settings
from acs_ros.qos import SERVICE
from acs_ros.sparing import SparingLogger


class GroundServer:
    """The action server, and the goals that are not finished."""

    def __init__(
        self,
        node: Node,
        asker: Asker,
        outlet: CameraSet,
        ledger: Ledger,
        settings: Callable[[], Settings],
        log: SparingLogger,
    ) -> None:
        self._log = log
        self.asker, self.outlet, self.ledger, self.settings = asker, outlet, ledger, settings
        self._lock = threading.Lock()
        self._open: list[GroundGoal] = []
        self._cancelled_early: set[bytes] = set()
        self._server = ActionServer(
            node,
            Ground,
            "~/ground",
            execute_callback=lambda handle: Ground.Result(),  # each goal brings its own, see GroundGoal
            goal_callback=lambda request: GoalResponse.ACCEPT,  # refusals are told in words, by aborting
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

    def log(self, text: str) -> None:
        """Tell a person, who is spared a flood of it."""
        self._log.warning("goal", text)

    def close(self, reason: str) -> None:
        """Abort what waits or runs."""
        with self._lock:
            goals, self._open = list(self._open), []
        for goal in goals:
            goal.finish(ABORTED, reason)  # first: the model's thread, once asked to stop, would tell another end
            self.asker.withdraw(goal)

    def give_up(self, goal: GroundGoal, reason: str) -> None:
        """Abort a goal that waits; one that runs goes on."""
        goal.overdue = reason  # for _begin: it may not have been handed over yet
        if self.asker.withdraw(goal, stop=False):
            goal.finish(ABORTED, reason)

    def forget(self, goal: GroundGoal) -> None:
        """It is over."""
        with self._lock:
            self._cancelled_early.discard(goal.id)
            if goal in self._open:
                self._open.remove(goal)

    def _accepted(self, handle: Any) -> None:
        self.ledger.count("goals")
        goal = GroundGoal(handle, self)
        with self._lock:
            full = len(self._open) >= self.settings().max_goals
            if not full:
                self._open.append(goal)
            cancelled = goal.id in self._cancelled_early
        if cancelled:
            goal.finish(CANCELED, "canceled")
            return
        problem = (
            f"{self.settings().max_goals} goals wait already (max_goals)"
            if full
            else goal_problem(goal, self.settings())
        )
        if not problem:
            problem = self._begin(goal)
        if problem:
            goal.finish(ABORTED, problem)

    def _begin(self, goal: GroundGoal) -> str:
        picture = goal.picture
        if picture is not None:
            goal.take_frame(picture)
            return self._hand_over(goal, has_picture=True)
        settings = self.settings()
        wait = settings.image_timeout
        if goal.request.deadline > 0:
            wait = min(wait, goal.request.deadline)
        # Before the goal is handed over: a frame may come at once, and ends this wait.
        goal.end_after(wait, lambda: f"no image came within {wait:g} s: {self.outlet.why_no_image(goal.camera)}")
        return self._hand_over(goal, has_picture=False)

    def _hand_over(self, goal: GroundGoal, has_picture: bool) -> str:
        problem = self.asker.take_goal(goal, has_picture)
        if not problem and goal.overdue:  # its time ran out before anybody could have withdrawn it
            self.give_up(goal, goal.overdue)
        return problem

    def _cancel(self, handle: Any) -> CancelResponse:
        with self._lock:
            goal = next((g for g in self._open if g.id == goal_id(handle)), None)
            early = goal is None and handle.status == GoalStatus.STATUS_ACCEPTED
            if early:  # rclpy tells the client of the acceptance before it tells us
                self._cancelled_early.add(goal_id(handle))
        if goal is None:
            return CancelResponse.ACCEPT if early else CancelResponse.REJECT
        # Settled first: the model's thread, once asked to stop, would end it as aborted; and a model that does not look
        # up must not keep the client waiting.
        goal.finish(CANCELED, "canceled")
        self.asker.withdraw(goal)
        return CancelResponse.ACCEPT


def goal_problem(goal: GroundGoal, settings: Settings) -> str:
    """Why the goal cannot be taken, or an empty string."""
    request = goal.request
    try:
        clean_phrase(request.phrase, settings.max_phrase_chars)
        if goal.picture is not None:
            goal.picture.check(settings.max_image_pixels)
    except AcsError as error:
        return str(error)
    if goal.camera not in settings.camera_names:
        known = ", ".join(map(repr, settings.camera_names))
        return f"there is no camera {goal.camera[:40]!r}: the parameter cameras names {known}"
    if not (math.isfinite(request.deadline) and request.deadline >= 0):
        return f"deadline must be 0 (none) or more seconds, got {request.deadline}"
    if not (math.isfinite(request.min_score) and request.min_score <= 1):
        return f"min_score must be at most 1 (negative: the node's own), got {request.min_score}"
    if request.samples > 256:
        return f"samples must be at most 256 (0: the node's own), got {request.samples}"
    return ""
