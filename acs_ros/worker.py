"""One thread for the model: single tasks in the order they came, and between them always the newest of each stream.

A stream (one camera) has at most one job that waits; a newer one takes its place. Tasks are asked for by somebody who
waits for an answer, so they come first, none is replaced, and the pause between jobs does not hold them back.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from acs_core.errors import Cancelled
from acs_core.types import ShouldStop

Job = TypeVar("Job")
Answer = TypeVar("Answer")
LOOK_AGAIN_S = 0.2  # a job that waits for its time asks this often whether ``interval`` has become shorter


class Task(Protocol):
    """Something that is asked once."""

    def run(self, should_stop: ShouldStop) -> None:
        """Do it, and tell whoever waits; on the worker's thread. Ends soon after ``should_stop`` says so."""

    def abandon(self, reason: str) -> None:
        """Tell whoever waits that it is not even begun."""


@dataclass(eq=False)
class _Running(Generic[Job]):
    stream: str
    job: Job
    again: bool = False  # the same job waits, to be run from the start
    stop: threading.Event = field(default_factory=threading.Event)


@dataclass(eq=False)
class _RunningTask:
    task: Task
    stop: threading.Event = field(default_factory=threading.Event)


class NewestJobWorker(Generic[Job, Answer]):
    """Runs ``work(job, should_stop)`` on one thread and hands the answer to ``deliver(job, answer)``.

    ``deliver`` runs on the worker's thread while the worker's lock is held, so that once :meth:`drop` or
    :meth:`restart` has returned nothing older is delivered; it must be short and must not call the worker.
    ``failed(job, error)`` gets every exception but ``Cancelled`` of a job that is still wanted; should it raise itself,
    that is logged and the next job runs. ``dropped(job)`` gets each job that is given up, while the lock is held. Every
    job that was handed in is delivered, failed, dropped or replaced, and only one of these. ``afterwards(job, answer)``
    runs once the answer is delivered, without the lock, and may take its time. No method but :meth:`close` waits for a
    running job.

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
    ) -> None:
        self._work, self._deliver, self._failed, self._interval = work, deliver, failed, interval
        self._dropped, self._afterwards = dropped, afterwards
        self._last_start = float("-inf")
        self._changed = threading.Condition()
        self._waiting: dict[str, Job] = {}  # stream -> its newest job, in the order the streams came to wait
        self._tasks: deque[Task] = deque()
        self._running: _Running[Job] | _RunningTask | None = None
        self._closed = False
        # A daemon: a model call that ignores should_stop must not keep the process from ending.
        self._thread = threading.Thread(target=self._loop, name="acs-inference", daemon=True)
        self._thread.start()

    def submit(self, job: Job, stream: str = "") -> bool:
        """Hand in a job. True when it took the place of one of its stream that still waited.

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
        """Hand in a task, behind the tasks that wait and before every job.

        Raises:
            RuntimeError: the worker is closed.
        """
        with self._changed:
            self._check_open()
            self._tasks.append(task)
            self._changed.notify_all()

    def withdraw(self, task: Task, stop: bool = True) -> bool:
        """Take back a task: True when it will never be begun; with ``stop``, one that runs is asked to stop."""
        with self._changed:
            if task in self._tasks:
                self._tasks.remove(task)
                return True
            if stop and isinstance(self._running, _RunningTask) and self._running.task is task:
                self._running.stop.set()
            return False

    def drop(self) -> None:
        """Forget the waiting jobs and ask a running one to stop; its answer is not delivered. Tasks stay."""
        with self._changed:
            waiting, self._waiting = self._waiting, {}
            for job in waiting.values():
                self._dropped(job)
            if isinstance(self._running, _Running):
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
        """Ask the running job to stop and run it again from the start, unless a newer one of its stream waits already.

        True when a job was running.
        """
        with self._changed:
            running = self._running
            if not isinstance(running, _Running) or running.stop.is_set():
                return False
            running.stop.set()
            running.again = running.stream not in self._waiting
            if running.again:
                self._waiting[running.stream] = running.job
            return True

    @property
    def busy(self) -> bool:
        """Whether a job or task runs, wanted or not."""
        with self._changed:
            return self._running is not None

    def close(self, timeout: float, reason: str = "the node stops") -> bool:
        """Drop everything and end the thread; False when what runs did not stop within ``timeout`` seconds."""
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
            except Exception as error:  # whatever the model raises, the next frame gets its chance
                self._finish(running, self._report(error))
            else:
                if self._finish(running, self._hand_over(answer)):
                    self._follow_up(running.job, answer)

    def _run_task(self, running: _RunningTask) -> None:
        try:
            running.task.run(running.stop.is_set)
        except Exception:  # a task tells its own failures; one that cannot must not take the thread along
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

    def _take(self) -> _Running[Job] | _RunningTask | None:
        with self._changed:
            while not self._closed:
                pause = self._last_start + self._interval() - time.monotonic()
                if self._tasks:
                    self._running = _RunningTask(self._tasks.popleft())
                    return self._running
                if not self._waiting:
                    self._changed.wait()
                elif pause > 0:
                    self._changed.wait(min(pause, LOOK_AGAIN_S))
                else:
                    self._last_start = time.monotonic()
                    stream = next(iter(self._waiting))
                    self._running = _Running(stream, self._waiting.pop(stream))
                    return self._running
            return None

    def _finish(self, running: _Running[Job], outcome: Callable[[Job], bool] | None) -> bool:
        """Whether its answer was delivered."""
        with self._changed:
            self._running = None
            if outcome is None or running.stop.is_set():
                if not running.again:
                    self._dropped(running.job)
                return False
            try:
                return outcome(running.job)
            except Exception:  # nobody is left to tell, and the thread must go on: the next frame needs it
                logging.getLogger(__name__).exception("the report of a job that could not be done failed itself")
                return False
