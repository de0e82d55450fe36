"""One thread that always works on the newest job, and can be told to drop what it is doing."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from acs_core.errors import Cancelled
from acs_core.types import ShouldStop

Job = TypeVar("Job")
Answer = TypeVar("Answer")
LOOK_AGAIN_S = 0.2  # a job that waits for its time asks this often whether ``interval`` has become shorter


@dataclass(eq=False)
class _Running(Generic[Job]):
    job: Job
    stop: threading.Event = field(default_factory=threading.Event)


class NewestJobWorker(Generic[Job, Answer]):
    """Runs ``work(job, should_stop)`` on one thread and hands the answer to ``deliver(job, answer)``.

    At most one job waits; a newer one replaces it. ``deliver`` runs on the worker's thread while the worker's lock is
    held, so that once :meth:`drop` or :meth:`restart` has returned nothing older is delivered; it must be short and
    must not call the worker. ``failed(job, error)`` gets every exception but ``Cancelled`` of a job that is still
    wanted; should it raise itself, that is logged and the next job runs. No method but :meth:`close` waits for a
    running job.

    ``interval`` gives the shortest time in seconds from one start to the next. It is applied when a job could start,
    not when it is handed in, so that what starts is always the newest.
    """

    def __init__(
        self,
        work: Callable[[Job, ShouldStop], Answer],
        deliver: Callable[[Job, Answer], None],
        failed: Callable[[Job, Exception], None],
        interval: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._work, self._deliver, self._failed, self._interval = work, deliver, failed, interval
        self._last_start = float("-inf")
        self._changed = threading.Condition()
        self._waiting: list[Job] = []  # at most one
        self._running: _Running[Job] | None = None
        self._closed = False
        # A daemon: a model call that ignores should_stop must not keep the process from ending.
        self._thread = threading.Thread(target=self._loop, name="acs-inference", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> bool:
        """Hand in a job. True when it took the place of one that still waited.

        Raises:
            RuntimeError: the worker is closed.
        """
        with self._changed:
            if self._closed:
                raise RuntimeError("the worker is closed")
            replaced = bool(self._waiting)
            self._waiting = [job]
            self._changed.notify_all()
            return replaced

    def drop(self) -> None:
        """Forget the waiting job and ask the running one to stop; its answer is not delivered."""
        with self._changed:
            self._waiting = []
            self._abandon()

    def restart(self) -> bool:
        """Ask the running job to stop and run it again from the start, unless a newer one waits already.

        True when a job was running.
        """
        with self._changed:
            running = self._running
            if running is None or running.stop.is_set():
                return False
            self._abandon()
            if not self._waiting:
                self._waiting = [running.job]
            return True

    @property
    def busy(self) -> bool:
        """Whether a job runs, wanted or not."""
        with self._changed:
            return self._running is not None

    def close(self, timeout: float) -> bool:
        """Drop everything and end the thread; False when the running job did not stop within ``timeout`` seconds."""
        with self._changed:
            self._closed = True
            self._waiting = []
            self._abandon()
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _abandon(self) -> None:
        if self._running is not None:
            self._running.stop.set()

    def _loop(self) -> None:
        while (running := self._take()) is not None:
            try:
                answer = self._work(running.job, running.stop.is_set)
            except Cancelled:
                self._finish(running, None)
            except Exception as error:  # whatever the model raises, the next frame gets its chance
                self._finish(running, self._report(error))
            else:
                self._finish(running, self._hand_over(answer))

    def _hand_over(self, answer: Answer) -> Callable[[Job], None]:
        def deliver(job: Job) -> None:
            try:
                self._deliver(job, answer)
            except Exception as error:  # a message that cannot be built or sent
                self._failed(job, error)

        return deliver

    def _report(self, error: Exception) -> Callable[[Job], None]:
        return lambda job: self._failed(job, error)

    def _take(self) -> _Running[Job] | None:
        with self._changed:
            while not self._closed:
                pause = self._last_start + self._interval() - time.monotonic()
                if not self._waiting:
                    self._changed.wait()
                elif pause > 0:
                    self._changed.wait(min(pause, LOOK_AGAIN_S))
                else:
                    self._last_start = time.monotonic()
                    self._running = _Running(self._waiting.pop())
                    return self._running
            return None

    def _finish(self, running: _Running[Job], outcome: Callable[[Job], None] | None) -> None:
        with self._changed:
            self._running = None
            if outcome is None or running.stop.is_set():
                return
            try:
                outcome(running.job)
            except Exception:  # nobody is left to tell, and the thread must go on: the next frame needs it
                logging.getLogger(__name__).exception("the report of a job that could not be done failed itself")
