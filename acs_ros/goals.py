"""The action ~/ground: one question, with feedback per stage and a cancel that is heard at once.

A goal costs no thread while it waits. It is set to executing when the model takes it up, so at most one of the
executor's threads waits for the model. Whatever happens to a goal is told in its result, in words.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from acs_msgs.action import Ground
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from std_msgs.msg import Header

from acs_core.errors import AcsError, Cancelled
from acs_core.phrase import clean_phrase
from acs_core.types import ShouldStop
from acs_ros.asking import Answer, Asker, describe
from acs_ros.camera_set import CameraSet
from acs_ros.engine import question_of, sampling_of
from acs_ros.frames import Frame
from acs_ros.ledger import Ledger
from acs_ros.parameters import Settings

RCLError = rclpy_implementation.RCLError
SUCCEEDED, ABORTED, CANCELED = "succeed", "abort", "canceled"
CANCEL_PATIENCE_S = 5.0  # rclpy marks a goal as canceling just after it asked us
Feedback = Ground.Feedback


class GroundGoal:
    """One accepted goal, from its acceptance to its result; a :class:`acs_ros.worker.Task`."""

    def __init__(self, handle: Any, server: GroundServer) -> None:
        self._handle, self._server = handle, server
        self.request: Ground.Goal = handle.request
        self.camera = self.request.camera or server.settings().camera_names[0]
        self._accepted = time.monotonic()
        self._frame: Frame | None = None
        self._lock = threading.Lock()
        self._executing = False
        self._done = threading.Event()
        self._outcome, self._result = ABORTED, Ground.Result()
        self._timer: threading.Timer | None = None

    @property
    def picture(self) -> Frame | None:
        """The goal's own picture, if it brings one."""
        for msg in (self.request.image, self.request.compressed_image):
            if len(msg.data):
                return Frame(msg, self.camera, own=True)
        return None

    @property
    def done(self) -> bool:
        """Whether its result is known."""
        return self._done.is_set()

    def take_frame(self, frame: Frame) -> None:
        """The picture to look at."""
        self._stop_timer()
        self._frame = frame
        self.tell(Feedback.STAGE_QUEUED)
        left = self._left()
        if left is not None:
            self.end_after(left, lambda: f"the deadline of {self.request.deadline:g} s passed before it was its turn")

    def end_after(self, seconds: float, why: Callable[[], str]) -> None:
        """Abort it after so many seconds, unless it has been begun by then."""
        self._timer = threading.Timer(max(0.0, seconds), lambda: self._server.give_up(self, why()))
        self._timer.daemon = True
        self._timer.start()

    def tell(self, stage: str) -> None:
        """Send feedback."""
        if not self.done:
            self._handle.publish_feedback(Feedback(stage=stage, elapsed=time.monotonic() - self._accepted))

    def run(self, should_stop: ShouldStop) -> None:
        """Ask the model; on its thread."""
        self._stop_timer()
        if self.done:
            return
        self._execute()
        request, settings = self.request, self._server.settings()
        question = replace(
            question_of(settings, (clean_phrase(request.phrase, settings.max_phrase_chars),)),
            sampling=sampling_of(settings, request.samples),
            multiple=request.multiple,
            min_score=request.min_score if request.min_score >= 0 else settings.min_score,
            deadline=self._left() or 0.0,
            with_attention=self._server.outlet.attention_wanted(self.camera),
        )
        try:
            if self._frame is None:
                raise Cancelled("the goal has no picture")
            answer = self._server.asker.work(self._frame, question, should_stop, self.tell)
            if should_stop():
                raise Cancelled("stopped when the answer was ready")
        except Cancelled as error:
            self.finish(ABORTED, str(error))
        except Exception as error:  # told in the result; the next goal gets its chance
            self.finish(ABORTED, describe(error))
        else:
            self._server.asker.send(answer)  # first to the topics, so that who waits for the goal has them at hand
            self.succeed(answer)

    def is_for(self, handle: Any) -> bool:
        """Whether it is this goal that rclpy speaks of."""
        return bytes(handle.goal_id.uuid) == bytes(self._handle.goal_id.uuid)

    def succeed(self, answer: Answer) -> None:
        """Its answer; a reason in words goes along where nothing was found."""
        composed = answer.messages
        self._result = Ground.Result(
            detections=composed.detections,
            detections_3d=composed.detections_3d,
            candidates=composed.candidates[0],
            message=answer.results[0].reason,
        )
        self.finish(SUCCEEDED, self._result.message)

    def abandon(self, reason: str) -> None:
        """It was not begun."""
        self.finish(ABORTED, reason)

    def finish(self, outcome: str, message: str) -> None:
        """Settle how it ends, once: a goal that ended already stays as it is. Returns at once."""
        with self._lock:
            if self.done:
                return
            self._outcome = outcome
            if outcome != SUCCEEDED:
                self._result = Ground.Result(message=message)
                self._result.detections.header = self._frame.header if self._frame else Header()
            self._done.set()
        self._stop_timer()
        if outcome == ABORTED:
            self._server.ledger.count("goals_failed")
            self._server.log(f"goal {self.request.phrase[:60]!r} aborted: {message}")
        self._execute()

    def _execute(self) -> None:
        with self._lock:
            if self._executing:
                return
            self._executing = True
        # At the end of the process the executor or the context may be gone: then nobody waits for the result either.
        with contextlib.suppress(RCLError, InvalidHandle, AttributeError):
            self._handle.execute(self._conclude)

    def _conclude(self, handle: Any) -> Any:
        """What rclpy runs as the goal's execution: wait for the outcome, and make it the goal's state."""
        self._done.wait()
        if self._outcome == CANCELED:
            deadline = time.monotonic() + CANCEL_PATIENCE_S
            while not handle.is_cancel_requested and time.monotonic() < deadline:
                time.sleep(0.001)
            if not handle.is_cancel_requested:
                handle.abort()
                return self._result
        getattr(handle, self._outcome)()
        self._server.forget(self)
        return self._result

    def _left(self) -> float | None:
        """Seconds left; None without a deadline."""
        if self.request.deadline <= 0:
            return None
        return max(0.001, self._accepted + self.request.deadline - time.monotonic())

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()


class GroundServer:
    """The action server, and the goals that are not finished."""

    def __init__(
        self, node: Node, asker: Asker, outlet: CameraSet, ledger: Ledger, settings: Callable[[], Settings]
    ) -> None:
        self._node = node
        self.asker, self.outlet, self.ledger, self.settings = asker, outlet, ledger, settings
        self._lock = threading.Lock()
        self._open: list[GroundGoal] = []
        self._server = ActionServer(
            node,
            Ground,
            "~/ground",
            execute_callback=lambda handle: Ground.Result(),  # each goal brings its own, see GroundGoal
            goal_callback=lambda request: GoalResponse.ACCEPT,  # refusals are told in words, by aborting
            handle_accepted_callback=self._accepted,
            cancel_callback=self._cancel,
            callback_group=ReentrantCallbackGroup(),
        )

    @property
    def count(self) -> int:
        """How many goals wait or run."""
        with self._lock:
            return len(self._open)

    def log(self, text: str) -> None:
        """Tell a person."""
        self._node.get_logger().warning(text)

    def close(self, reason: str) -> None:
        """Abort what waits or runs."""
        with self._lock:
            goals, self._open = list(self._open), []
        for goal in goals:
            self.asker.withdraw(goal)
            goal.finish(ABORTED, reason)

    def destroy(self) -> None:
        """Take the action away."""
        self._server.destroy()

    def give_up(self, goal: GroundGoal, reason: str) -> None:
        """Abort a goal that waits; one that runs goes on."""
        if self.asker.withdraw(goal, stop=False):
            goal.finish(ABORTED, reason)

    def forget(self, goal: GroundGoal) -> None:
        """It is over."""
        with self._lock:
            if goal in self._open:
                self._open.remove(goal)

    def _accepted(self, handle: Any) -> None:
        self.ledger.count("goals")
        goal = GroundGoal(handle, self)
        with self._lock:
            full = len(self._open) >= self.settings().max_goals
            if not full:
                self._open.append(goal)
        problem = f"{self.settings().max_goals} goals wait already (max_goals)" if full else self._problem(goal)
        if not problem:
            problem = self._begin(goal)
        if problem:
            goal.finish(ABORTED, problem)

    def _begin(self, goal: GroundGoal) -> str:
        picture = goal.picture
        if picture is not None:
            goal.take_frame(picture)
            return self.asker.take_goal(goal, has_picture=True)
        settings = self.settings()
        wait = settings.image_timeout
        if goal.request.deadline > 0:
            wait = min(wait, goal.request.deadline)
        goal.tell(Feedback.STAGE_IMAGE)
        problem = self.asker.take_goal(goal, has_picture=False)
        if not problem:
            goal.end_after(wait, lambda: f"no image came within {wait:g} s: {self.outlet.why_no_image(goal.camera)}")
        return problem

    def _problem(self, goal: GroundGoal) -> str:
        """Why the goal cannot be taken, or an empty string."""
        request, settings = goal.request, self.settings()
        try:
            clean_phrase(request.phrase, settings.max_phrase_chars)
            if goal.picture is not None:
                goal.picture.check(settings.max_image_pixels)
        except AcsError as error:
            return str(error)
        if goal.camera not in settings.camera_names:
            known = ", ".join(map(repr, settings.camera_names))
            return f"there is no camera {goal.camera!r}: the parameter cameras names {known}"
        if not (math.isfinite(request.deadline) and request.deadline >= 0):
            return f"deadline must be 0 (none) or more seconds, got {request.deadline}"
        if not (math.isfinite(request.min_score) and request.min_score <= 1):
            return f"min_score must be at most 1 (negative: the node's own), got {request.min_score}"
        if request.samples > 256:
            return f"samples must be at most 256 (0: the node's own), got {request.samples}"
        return ""

    def _cancel(self, handle: Any) -> CancelResponse:
        with self._lock:
            goal = next((g for g in self._open if g.is_for(handle)), None)
        if goal is None:
            return CancelResponse.REJECT
        self.asker.withdraw(goal)
        # Not only asked to stop: a model that does not look up must not keep the client waiting.
        goal.finish(CANCELED, "canceled")
        return CancelResponse.ACCEPT
