"""One goal of ~/ground, from its acceptance to its result.

A waiting goal occupies no thread. It is set to executing when the model starts on it, so at most one of the executor's
threads waits for the model. The result's message says why a goal was aborted or found nothing.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from acs_msgs.action import Ground
from rclpy.exceptions import InvalidHandle
from rclpy.impl.implementation_singleton import rclpy_implementation
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from acs_core.arguments import clean_phrase
from acs_core.errors import Cancelled
from acs_core.types import ShouldStop
from acs_ros.conversions.detections import region_from_message
from acs_ros.conversions.images import Frame
from acs_ros.errors import describe
from acs_ros.node.inference_worker import FrameGrounder, InferenceOptions, Task, sampling_config
from acs_ros.node.publishers import FrameAnswer
from acs_ros.rclpy_fixes import ThrottledLogger

RCLError = rclpy_implementation.RCLError
SUCCEEDED, ABORTED, CANCELED = "succeed", "abort", "canceled"
COUNTERS = {SUCCEEDED: "goals_succeeded", ABORTED: "goals_failed", CANCELED: "goals_cancelled"}
CANCEL_PATIENCE_S = 5.0  # rclpy marks a goal as canceling just after it called our cancel callback
Feedback = Ground.Feedback


class GroundGoal:
    """One accepted goal.

    Args:
        handle: The goal handle of rclpy.
        frame_grounder: Grounds the goal's frame and publishes the answer.
        log: Gets a line for each aborted goal.
        give_up: Called with the goal and a reason, on a thread of its own, when its time is over: withdraws the goal
            unless it runs.
        forget: Called with the goal after its result was set.

    Attributes:
        task: The goal as the worker runs it.
        request: The goal's message; its images are dropped with the result.
        camera: Name of the camera whose next frame is used.
        overdue: Why the goal is to be aborted when its time was over before it was handed over; else empty.
    """

    def __init__(
        self,
        handle: Any,
        frame_grounder: FrameGrounder,
        log: ThrottledLogger,
        *,
        give_up: Callable[[GroundGoal, str], None],
        forget: Callable[[GroundGoal], None],
    ) -> None:
        self._handle, self._frame_grounder, self._log = handle, frame_grounder, log
        self._give_up, self._forget = give_up, forget
        self.task = Task(self.run, self.abandon)
        self.request: Ground.Goal = handle.request
        self.camera = self.request.camera or frame_grounder.parameters.current.camera_names[0]
        self._accepted = time.monotonic()
        self._frame: Frame | None = None
        self._lock = threading.Lock()
        self._executing = False
        self._done = threading.Event()
        self._outcome, self._result = ABORTED, Ground.Result()
        self._timer: threading.Timer | None = None
        self.overdue = ""

    @property
    def id(self) -> bytes:
        """UUID of the goal, as bytes."""
        return goal_id(self._handle)

    @property
    def picture(self) -> Frame | None:
        """The image that the goal brings along, as a frame; None without one."""
        for msg in (self.request.image, self.request.compressed_image):
            if len(msg.data):
                return Frame(msg, self.camera, own=True)
        return None

    @property
    def done(self) -> bool:
        """Whether the result is set."""
        return self._done.is_set()

    @property
    def cancelled(self) -> bool:
        """Whether the goal ended as cancelled."""
        with self._lock:
            return self.done and self._outcome == CANCELED

    def wait_for_frame(self) -> None:
        """Send the feedback that the goal waits for the next frame of its camera."""
        self.tell(Feedback.STAGE_IMAGE)

    def take_frame(self, frame: Frame) -> None:
        """Set the frame that this goal will be answered about."""
        self._stop_timer()
        self._frame = frame
        self.tell(Feedback.STAGE_QUEUED)
        left = self._left()
        if left is not None:
            self.end_after(left, lambda: f"the deadline of {self.request.deadline:g} s passed before it was its turn")

    def end_after(self, seconds: float, why: Callable[[], str]) -> None:
        """Abort the goal after ``seconds`` with the reason ``why()``, unless it was started by then."""

        def give_up() -> None:
            try:
                reason = why()
            except Exception as error:  # the goal must end even if its reason cannot be found
                reason = describe(error)
            self._give_up(self, reason)

        self._timer = threading.Timer(min(max(0.0, seconds), threading.TIMEOUT_MAX), give_up)
        self._timer.daemon = True
        self._timer.start()

    def tell(self, stage: str) -> None:
        """Send feedback, unless the goal has ended."""
        # The lock makes checking and sending one step.
        with self._lock, contextlib.suppress(RCLError, InvalidHandle):  # the node is being destroyed
            if not self.done:
                self._handle.publish_feedback(Feedback(stage=stage, elapsed=time.monotonic() - self._accepted))

    def run(self, should_stop: ShouldStop) -> None:
        """Ground the goal's phrase; on the model's thread."""
        self._stop_timer()
        if self.done:
            return
        self._execute()
        try:
            if self._frame is None:
                raise Cancelled("the goal has no picture")
            answer = self._frame_grounder.ground(self._frame, self._options(), should_stop, self.tell)
            if should_stop():
                raise Cancelled("stopped when the answer was ready")
            if self.succeed(answer):
                self._frame_grounder.show(answer)
        except Cancelled as error:
            self.finish(ABORTED, str(error))
        except Exception as error:  # reported in the result; the next goal is run
            self.finish(ABORTED, describe(error))

    def _options(self) -> InferenceOptions:
        request, settings = self.request, self._frame_grounder.parameters.current
        own = request.min_score >= 0  # in the place of both thresholds of the node
        phrase = clean_phrase(request.phrase, settings.max_phrase_chars)
        return replace(
            self._frame_grounder.options((phrase,), self.camera),
            sampling=sampling_config(settings, request.samples),
            multiple=request.multiple,
            min_score=request.min_score if own else settings.min_score,
            min_precision=0.0 if own else settings.min_precision,
            deadline=self._left() or 0.0,
            region=region_from_message(request.region),
            keep_prefix=True,  # for other goals about the same image
        )

    def succeed(self, answer: FrameAnswer) -> bool:
        """Publish the answer and let the goal succeed with it, unless it ended before. Returns whether that was done.

        The result's message says why nothing was found, or why there is no place in space for what was. Publishing and
        ending are one step: a goal that is cancelled meanwhile has either ended before and publishes nothing, or has
        succeeded.

        Raises:
            Exception: what publishing raised; the goal has not ended.
        """
        composed = answer.messages
        result = Ground.Result(
            detections=composed.detections,
            detections_3d=composed.detections_3d,
            candidates=composed.candidates[0],
            message=answer.results[0].reason or (composed.no_place and f"no place in space: {composed.no_place}"),
        )
        # To the topics first, so that their messages have arrived when the result does.
        return self._settle(SUCCEEDED, result.message, result, lambda: self._frame_grounder.publish(answer))

    def abandon(self, reason: str) -> None:
        """Abort the goal, which will not be started."""
        self.finish(ABORTED, reason)

    def finish(self, outcome: str, message: str) -> bool:
        """End the goal as ``outcome``, unless it ended before. Returns whether that was done. Waits only for an answer
        that is being published."""
        return self._settle(outcome, message, None, lambda: None)

    def _settle(self, outcome: str, message: str, result: Ground.Result | None, send: Callable[[], None]) -> bool:
        with self._lock:
            if self.done:
                return False
            send()
            self._outcome = outcome
            self._result = result or Ground.Result(message=message)
            if result is None:
                self._result.detections.header = self._frame.header if self._frame else Header()
            # rclpy keeps the request for as long as the result, and a flood of goals may bring a picture each.
            self._frame = None
            self.request.image, self.request.compressed_image = Image(), CompressedImage()
            # Before the result: a client that has it finds the goal counted.
            self._frame_grounder.statistics.increment(COUNTERS[outcome])
            self._done.set()
        self._stop_timer()
        if outcome == ABORTED:
            self._log.warning("goal", f"goal {self.request.phrase[:60]!r} aborted: {message}")
        self._execute()
        return True

    def _execute(self) -> None:
        with self._lock:
            if self._executing:
                return
            self._executing = True
        # At the end of the process the executor or the context may be gone; no client waits for the result then.
        with contextlib.suppress(RCLError, InvalidHandle, AttributeError):
            self._handle.execute(self._conclude)

    def _conclude(self, handle: Any) -> Any:
        """The goal's execution for rclpy: wait for the outcome, and make it the goal's state."""
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
            self._forget(self)  # or it would count against max_goals for ever

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
    """UUID of the goal of ``handle``, as bytes."""
    return bytes(handle.goal_id.uuid)
