"""What runs on the model's thread: the queue of jobs and tasks, and one call of the model about a frame.

A stream (one camera) has at most one waiting job; a newer one replaces it. A task belongs to a client that waits for
its result: tasks run before jobs, in the order they came, are never replaced, and ignore the pause between jobs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from acs_core.errors import AcsError, Cancelled
from acs_core.geometry import Box
from acs_core.types import GroundingResult, OnStage, SamplingConfig, ShouldStop
from acs_ros.conversions.images import Frame
from acs_ros.diagnostics.statistics import NodeStatistics
from acs_ros.errors import describe
from acs_ros.node.cameras import CameraSet
from acs_ros.node.model_loader import GrounderLike, free_memory
from acs_ros.node.parameters import NodeParameters, Settings
from acs_ros.node.publishers import FrameAnswer
from acs_ros.rclpy_fixes import ThrottledLogger

Job = TypeVar("Job")
Answer = TypeVar("Answer")
LOOK_AGAIN_S = 0.2  # seconds after which a waiting job calls ``interval`` again, which may have become shorter


@dataclass(frozen=True, eq=False)
class Task:
    """Work that runs once, before any waiting job.

    Attributes:
        run: Does the work on the worker's thread and reports its result; returns soon after ``should_stop()`` is true.
        abandon: Reports, with a reason, that the work will not be started.
    """

    run: Callable[[ShouldStop], None]
    abandon: Callable[[str], None]


@dataclass(eq=False)
class _RunningJob(Generic[Job]):
    stream: str
    job: Job
    again: bool = False  # the same job waits to be run again from the start
    stop: threading.Event = field(default_factory=threading.Event)


@dataclass(eq=False)
class _RunningTask:
    task: Task
    stop: threading.Event = field(default_factory=threading.Event)


class InferenceWorker(Generic[Job, Answer]):
    """Runs ``work(job, should_stop)`` on one thread and hands the answer to ``deliver(job, answer)``.

    ``deliver`` runs on the worker's thread while the worker's lock is held, so that once :meth:`drop` or
    :meth:`restart` has returned nothing older is delivered; it must be short and must not call the worker.
    ``failed(job, error)`` gets every exception but ``Cancelled`` of a job that is still wanted; should it raise itself,
    that is logged and the next job runs. ``dropped(job)`` gets each job that is given up, while the lock is held. Every
    submitted job is either delivered, failed, dropped or replaced. ``afterwards(job, answer)`` runs after the delivery,
    without the lock, and may be slow. ``idle()`` is called, with the lock held, when nothing waits or runs any more; it
    must not wait. No method but :meth:`close` waits for a running job.

    ``interval`` gives the shortest time in seconds from one job's start to the next's. It is applied when a job could
    start, not when it is handed in, so that what starts is always the newest. Streams take turns.
    """

    def __init__(
        self,
        work: Callable[[Job, ShouldStop], Answer],
        deliver: Callable[[Job, Answer], None],
        failed: Callable[[Job, Exception], None],
        interval: Callable[[], float] = lambda: 0.0,
        dropped: Callable[[Job], None] = lambda job: None,
        afterwards: Callable[[Job, Answer], None] = lambda job, answer: None,
        idle: Callable[[], None] = lambda: None,
    ) -> None:
        self._work, self._deliver, self._failed, self._interval = work, deliver, failed, interval
        self._dropped, self._afterwards, self._idle = dropped, afterwards, idle
        self._last_start = float("-inf")
        self._changed = threading.Condition()
        self._waiting: dict[str, Job] = {}  # stream -> its newest job, in the order the streams came to wait
        self._tasks: deque[Task] = deque()
        self._running: _RunningJob[Job] | _RunningTask | None = None
        self._closed = False
        # A daemon: a model call that ignores should_stop must not keep the process from ending.
        self._thread = threading.Thread(target=self._loop, name="acs-inference", daemon=True)
        self._thread.start()

    def submit(self, job: Job, stream: str = "") -> bool:
        """Submit a job. Returns True when it replaced a waiting one of its stream.

        Raises:
            RuntimeError: the worker is closed.
        """
        with self._changed:
            self._check_open()
            replaced = stream in self._waiting
            self._waiting[stream] = job
            self._changed.notify_all()
            return replaced

    def enqueue(self, task: Task) -> None:
        """Append a task to the waiting tasks, which run before every job.

        Raises:
            RuntimeError: the worker is closed.
        """
        with self._changed:
            self._check_open()
            self._tasks.append(task)
            self._changed.notify_all()

    def withdraw(self, task: Task, stop: bool = True) -> bool:
        """Withdraw a task. Returns True when it will never start; with ``stop``, a running one is asked to stop."""
        with self._changed:
            if task in self._tasks:
                self._tasks.remove(task)
                return True
            if stop and isinstance(self._running, _RunningTask) and self._running.task is task:
                self._running.stop.set()
            return False

    def drop(self) -> None:
        """Drop the waiting jobs and ask a running one to stop; its answer is not delivered. Tasks stay."""
        with self._changed:
            waiting, self._waiting = self._waiting, {}
            for job in waiting.values():
                self._dropped(job)
            if isinstance(self._running, _RunningJob):
                self._running.stop.set()

    def drop_tasks(self, reason: str) -> None:
        """Abandon the waiting tasks and ask a running one to stop."""
        with self._changed:
            tasks, self._tasks = list(self._tasks), deque()
            if isinstance(self._running, _RunningTask):
                self._running.stop.set()
        for task in tasks:
            self._abandon(task, reason)

    def restart(self) -> bool:
        """Ask the running job to stop and run it again from the start, unless a newer one of its stream waits.

        Returns True when a job was running.
        """
        with self._changed:
            running = self._running
            if not isinstance(running, _RunningJob) or running.stop.is_set():
                return False
            running.stop.set()
            running.again = running.stream not in self._waiting
            if running.again:
                self._waiting[running.stream] = running.job
            return True

    @property
    def busy(self) -> bool:
        """Whether a job or task runs, including one that was asked to stop."""
        with self._changed:
            return self._running is not None

    @property
    def has_work(self) -> bool:
        """Whether a job or task waits or runs."""
        with self._changed:
            return self._running is not None or bool(self._waiting or self._tasks)

    def close(self, timeout: float, reason: str = "the node stops") -> bool:
        """Drop everything and end the thread. Returns False when it did not end within ``timeout`` seconds."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.drop()
        self.drop_tasks(reason)
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the worker is closed")

    def _loop(self) -> None:
        while (running := self._take()) is not None:
            if isinstance(running, _RunningTask):
                self._run_task(running)
                continue
            try:
                answer = self._work(running.job, running.stop.is_set)
            except Cancelled:
                self._finish(running, None)
            except Exception as error:  # whatever the model raises, the next job is run
                self._finish(running, self._report(error))
            else:
                if self._finish(running, self._hand_over(answer)):
                    self._follow_up(running.job, answer)

    def _run_task(self, running: _RunningTask) -> None:
        try:
            running.task.run(running.stop.is_set)
        except Exception:  # a task reports its own failures; if it cannot, the thread goes on
            logging.getLogger(__name__).exception("a task could not tell how it ended")
        with self._changed:
            self._running = None

    def _abandon(self, task: Task, reason: str) -> None:
        try:
            task.abandon(reason)
        except Exception:
            logging.getLogger(__name__).exception("a task could not tell that it was abandoned")

    def _follow_up(self, job: Job, answer: Answer) -> None:
        try:
            self._afterwards(job, answer)
        except Exception:
            logging.getLogger(__name__).exception("what follows an answer failed")

    def _hand_over(self, answer: Answer) -> Callable[[Job], bool]:
        def deliver(job: Job) -> bool:
            try:
                self._deliver(job, answer)
            except Exception as error:  # a message that cannot be built or sent
                self._failed(job, error)
                return False
            return True

        return deliver

    def _report(self, error: Exception) -> Callable[[Job], bool]:
        def fail(job: Job) -> bool:
            self._failed(job, error)
            return False

        return fail

    def _take(self) -> _RunningJob[Job] | _RunningTask | None:
        with self._changed:
            while not self._closed:
                pause = self._last_start + self._interval() - time.monotonic()
                if self._tasks:
                    self._running = _RunningTask(self._tasks.popleft())
                    return self._running
                if not self._waiting:
                    self._idle()
                    self._changed.wait()
                elif pause > 0:
                    self._changed.wait(min(pause, LOOK_AGAIN_S))
                else:
                    self._last_start = time.monotonic()
                    stream = next(iter(self._waiting))
                    self._running = _RunningJob(stream, self._waiting.pop(stream))
                    return self._running
            return None

    def _finish(self, running: _RunningJob[Job], outcome: Callable[[Job], bool] | None) -> bool:
        """End a job with ``outcome``. Returns whether its answer was delivered."""
        with self._changed:
            self._running = None
            if outcome is None or running.stop.is_set():
                if not running.again:
                    self._dropped(running.job)
                return False
            try:
                return outcome(running.job)
            except Exception:  # the report itself failed: log it, the thread goes on
                logging.getLogger(__name__).exception("the report of a job that could not be done failed itself")
                return False


@dataclass(frozen=True)
class InferenceOptions:
    """The arguments of one call of the model. ``deadline`` in seconds from now, 0: none; ``region``: the part of the
    image to search, in pixels; ``keep_prefix``: whether the image stays prefilled, for other goals about it."""

    phrases: tuple[str, ...]
    sampling: SamplingConfig
    multiple: bool = False
    min_score: float = 0.0
    min_votes: int = 2
    deadline: float = 0.0
    with_attention: bool = False
    second_look: bool = False
    check_labels: bool = True
    region: Box | None = None
    min_precision: float = 0.0
    keep_prefix: bool = False
    whole_responses: bool = False


def inference_options(settings: Settings, phrases: tuple[str, ...], with_attention: bool = False) -> InferenceOptions:
    """The options that the parameters give for ``phrases``."""
    return InferenceOptions(
        phrases,
        sampling_config(settings),
        settings.multiple,
        settings.min_score,
        settings.min_votes,
        settings.deadline,
        with_attention,
        settings.second_look,
        settings.check_labels,
        min_precision=settings.min_precision,
        keep_prefix=len(phrases) > 1,  # no further forward then: the phrases share one over the image
        whole_responses=settings.whole_responses,
    )


def sampling_config(settings: Settings, samples: int = 0) -> SamplingConfig:
    """The sampling options of the parameters; ``samples`` above 0 replaces the parameter."""
    return SamplingConfig(
        num_samples=samples or settings.samples,
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        max_new_tokens=settings.max_new_tokens,
        seed=None if settings.seed < 0 else settings.seed,
        auto=settings.auto_samples,
        speculation=settings.speculation,
    )


def ask(
    grounder: GrounderLike,
    image: np.ndarray,
    options: InferenceOptions,
    should_stop: ShouldStop,
    on_stage: OnStage | None = None,
) -> tuple[GroundingResult, ...]:
    """One result per phrase about an (H, W, 3) uint8 RGB image, in their order.

    Raises:
        Cancelled: ``should_stop`` returned True.
        AcsError: the image or a phrase cannot be used.
    """
    return grounder.ground_many(
        image,
        options.phrases,
        sampling=options.sampling,
        multiple=options.multiple,
        min_score=options.min_score,
        min_precision=options.min_precision,
        min_votes=options.min_votes,
        check_labels=options.check_labels,
        whole_responses=options.whole_responses,
        deadline_ms=options.deadline * 1000 if options.deadline > 0 else None,
        with_attention=options.with_attention,
        keep_image=False,
        second_look=options.second_look,
        region=options.region,
        keep_prefix=options.keep_prefix,
        should_stop=should_stop,
        on_stage=on_stage,
    )


class FrameGrounder:
    """Grounds phrases in frames and publishes the answers: one call of the model from the frame to its messages.

    Attributes:
        grounder: The loaded model; None while there is none.
        parameters: The node's parameters, read anew for each frame.
        statistics: The node's counters.
    """

    def __init__(
        self, parameters: NodeParameters, statistics: NodeStatistics, cameras: CameraSet, log: ThrottledLogger
    ) -> None:
        self.parameters, self.statistics, self._cameras, self._log = parameters, statistics, cameras, log
        self.grounder: GrounderLike | None = None

    def options(self, phrases: tuple[str, ...], camera: str) -> InferenceOptions:
        """The options for ``phrases``, with attention where a picture of it has a subscriber."""
        return inference_options(self.parameters.current, phrases, self._cameras.attention_wanted(camera))

    def ground(
        self, frame: Frame, options: InferenceOptions, should_stop: ShouldStop, on_stage: OnStage | None = None
    ) -> FrameAnswer:
        """Call the model about ``frame`` and compose the messages; on the model's thread only.

        Raises:
            Cancelled: ``should_stop`` returned True, or the model is gone.
            AcsError: the image or a phrase cannot be used.
            Exception: what the model raised.
        """
        grounder, began = self.grounder, time.monotonic()
        if grounder is None:
            raise Cancelled("the model is gone")
        self.statistics.work_began()
        try:
            frame = self._cameras.expect_companions(frame)
            settings = self.parameters.current
            image = frame.rgb(
                settings.max_image_pixels, settings.accept_tiff, settings.image_bits, settings.accept_16uc1
            )
            if frame.own and frame.note:  # of other frames, their camera says so once
                self._log.warning("image of a goal", f"image of a goal: {frame.note}")
            results = ask(grounder, image, options, should_stop, on_stage)
            frame = self._cameras.add_companions(frame)  # most come after their image
            return FrameAnswer(frame, image, results, self._cameras.compose(frame, image, results), began)
        except Exception as error:
            if not isinstance(error, AcsError):
                free_memory()  # the error may be out of memory: leave the next frame as much as possible
            raise
        finally:
            self.statistics.work_ended()

    def publish(self, answer: FrameAnswer) -> None:
        """Publish an answer, and count it."""
        self.statistics.results_sent(answer.results, (time.monotonic() - answer.began) * 1000)
        self._cameras.publish(answer)

    def show(self, answer: FrameAnswer) -> None:
        """Publish the pictures of an answer that was published."""
        try:
            self._cameras.show(answer)
        except Exception as error:  # the answer itself is published
            self._log.warning("no answer", f"the pictures of an answer could not be sent: {describe(error)}")

    def report_failure(self, frame: Frame, error: Exception) -> None:
        """Count and log that ``frame`` could not be answered."""
        problem = describe(error)
        self.statistics.failure(problem)
        stamp = frame.header.stamp
        self._log.warning("no answer", f"no answer for the frame of {stamp.sec}.{stamp.nanosec:09d}: {problem}")
