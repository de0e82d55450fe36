"""One goal of ~/ground, from its acceptance to its result.

A goal costs no thread while it waits. It is set to executing when the model takes it up, so at most one of the
executor's threads waits for the model. Whatever happens to a goal is told in its result, in words.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from acs_msgs.action import Ground
from rclpy.exceptions import InvalidHandle
from rclpy.impl.implementation_singleton import rclpy_implementation
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from acs_core.errors import Cancelled
from acs_core.phrase import clean_phrase
from acs_core.types import ShouldStop
from acs_ros.asking import Asker, describe
from acs_ros.engine import Question, question_of, sampling_of
from acs_ros.frames import Frame
from acs_ros.ledger import Ledger
from acs_ros.outlet import Answer, Outlet
from acs_ros.parameters import Settings

RCLError = rclpy_implementation.RCLError
SUCCEEDED, ABORTED, CANCELED = "succeed", "abort", "canceled"
COUNTERS = {SUCCEEDED: "goals_succeeded", ABORTED: "goals_failed", CANCELED: "goals_cancelled"}
CANCEL_PATIENCE_S = 5.0  # rclpy marks a goal as canceling just after it asked us
Feedback = Ground.Feedback


class GoalKeeper(Protocol):
    """What a goal needs of its server."""

    @property
    def asker(self) -> Asker:
        """Who asks the model."""

    @property
    def outlet(self) -> Outlet:
        """Where answers go besides the result."""

    @property
    def ledger(self) -> Ledger:
        """The node's counters."""

    @property
    def settings(self) -> Callable[[], Settings]:
        """The parameters now."""

    def log(self, text: str) -> None:
        """Tell a person."""

    def give_up(self, goal: GroundGoal, reason: str) -> None:
        """Abort a goal that waits; one that runs goes on."""

    def forget(self, goal: GroundGoal) -> None:
        """It is over."""


class GroundGoal:
    """One accepted goal, from its acceptance to its result; a :class:`acs_ros.worker.Task`."""

    def __init__(self, handle: Any, server: GoalKeeper) -> None:
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
        self.overdue = ""  # why it is to end that was not begun in time

    @property
    def id(self) -> bytes:
        """What rclpy tells it apart by."""
        return goal_id(self._handle)

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

    def waits(self) -> None:
        """The next frame of its camera will be its own."""
        self.tell(Feedback.STAGE_IMAGE)

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
            with contextlib.suppress(RCLError, InvalidHandle):  # the node is being destroyed
                self._handle.publish_feedback(Feedback(stage=stage, elapsed=time.monotonic() - self._accepted))

    def run(self, should_stop: ShouldStop) -> None:
        """Ask the model; on its thread."""
        self._stop_timer()
        if self.done:
            return
        self._execute()
        try:
            if self._frame is None:
                raise Cancelled("the goal has no picture")
            answer = self._server.asker.work(self._frame, self._question(), should_stop, self.tell)
            if should_stop() or self.done:
                raise Cancelled("stopped when the answer was ready")
            self._server.asker.send(answer)  # first to the topics, so that who waits for the goal has them at hand
            self.succeed(answer)
            self._server.asker.show(answer)
        except Cancelled as error:
            self.finish(ABORTED, str(error))
        except Exception as error:  # told in the result; the next goal gets its chance
            self.finish(ABORTED, describe(error))

    def _question(self) -> Question:
        request, settings = self.request, self._server.settings()
        return replace(
            question_of(settings, (clean_phrase(request.phrase, settings.max_phrase_chars),)),
            sampling=sampling_of(settings, request.samples),
            multiple=request.multiple,
            min_score=request.min_score if request.min_score >= 0 else settings.min_score,
            deadline=self._left() or 0.0,
            with_attention=self._server.outlet.attention_wanted(self.camera),
        )

    def succeed(self, answer: Answer) -> None:
        """Its answer; a reason in words goes along where nothing was found."""
        composed = answer.messages
        result = Ground.Result(
            detections=composed.detections,
            detections_3d=composed.detections_3d,
            candidates=composed.candidates[0],
            message=answer.results[0].reason,
        )
        self.finish(SUCCEEDED, result.message, result)

    def abandon(self, reason: str) -> None:
        """It was not begun."""
        self.finish(ABORTED, reason)

    def finish(self, outcome: str, message: str, result: Ground.Result | None = None) -> None:
        """Settle how it ends, once: a goal that ended already stays as it is. Returns at once."""
        with self._lock:
            if self.done:
                return
            self._outcome = outcome
            self._result = result or Ground.Result(message=message)
            if result is None:
                self._result.detections.header = self._frame.header if self._frame else Header()
            # rclpy keeps the request for as long as the result, and a flood of goals may bring a picture each.
            self._frame = None
            self.request.image, self.request.compressed_image = Image(), CompressedImage()
            self._server.ledger.count(COUNTERS[outcome])  # first: who has the result sees the count
            self._done.set()
        self._stop_timer()
        if outcome == ABORTED:
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
        try:
            if self._outcome == CANCELED:
                deadline = time.monotonic() + CANCEL_PATIENCE_S
                while not handle.is_cancel_requested and time.monotonic() < deadline:
                    time.sleep(0.001)
                if not handle.is_cancel_requested:
                    handle.abort()
                    return self._result
            getattr(handle, self._outcome)()
            return self._result
        finally:
            self._server.forget(self)  # or it would count against max_goals for ever

    def _left(self) -> float | None:
        """Seconds left; None without a deadline."""
        if self.request.deadline <= 0:
            return None
        return max(0.001, self._accepted + self.request.deadline - time.monotonic())

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()


def goal_id(handle: Any) -> bytes:
    """What rclpy tells goals apart by."""
    return bytes(handle.goal_id.uuid)
