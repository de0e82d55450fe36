from __future__ import annotations

import threading

from acs_core.errors import Cancelled
from acs_ros.node.inference_worker import InferenceWorker


class WorkerBench:
    """A worker whose jobs wait for ``gate``, with everything that comes out of it."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.delivered: list[tuple[str, str]] = []
        self.failures: list[tuple[str, str]] = []
        self.dropped: list[str] = []
        self.gate = threading.Event()
        self.obedient = True
        self.deliver_error: Exception | None = None
        self.report_error: Exception | None = None
        self.interval, self.looks = 0.0, 0
        self.worker: InferenceWorker[str, str] = InferenceWorker(
            self._work, self._deliver, self._failed, self._interval, self.dropped.append
        )

    def _work(self, job, should_stop):
        self.started.append(job)
        while not self.gate.wait(0.001):
            if self.obedient and should_stop():
                raise Cancelled("stopped")
        if job.startswith("bad"):
            raise ValueError(f"cannot do {job}")
        return job.upper()

    def _interval(self):
        self.looks += 1
        return self.interval

    def _deliver(self, job, answer):
        if self.deliver_error is not None:
            raise self.deliver_error
        self.delivered.append((job, answer))

    def _failed(self, job, error):
        if self.report_error is not None:
            raise self.report_error
        self.failures.append((job, str(error)))
