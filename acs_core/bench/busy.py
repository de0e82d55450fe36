"""Latency of an answer while other programs use the cores too, with threads that spin or sleep while they wait."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from acs_core.errors import BenchError

POLICIES = {"spin": "ACTIVE", "sleep": "PASSIVE"}  # behaviour of waiting threads: the value of OMP_WAIT_POLICY
_CHILD = """
import json, sys, time
import numpy
from transformers.utils import logging
logging.set_verbosity_error(); logging.disable_progress_bar()
from acs_core.grounder import Grounder
import torch
torch.set_num_threads(int(sys.argv[2]))
grounder = Grounder.from_pretrained(sys.argv[1], device="cpu", selector="first-valid")
image = numpy.zeros((480, 640, 3), numpy.uint8)
seconds = []
for _ in range(1 + int(sys.argv[3])):
    began = time.perf_counter()
    grounder.ground(image, "key")
    seconds.append(time.perf_counter() - began)
print(json.dumps(seconds[1:]))
"""
_NEIGHBOUR = "import os\nwhile os.getppid() == %d:\n    for _ in range(1_000_000):\n        pass"


@dataclass(frozen=True)
class BusyRow:
    """Latency of an answer in one case.

    Attributes:
        threads: number of threads of the model.
        waiting: "spin" or "sleep", the behaviour of waiting threads.
        neighbours: number of other busy programs.
        median_ms: median time in milliseconds.
        most_ms: maximum time in milliseconds.
    """

    threads: int
    waiting: str
    neighbours: int
    median_ms: float
    most_ms: float

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return vars(self)


def busy_answers(model: str, answers: int = 9) -> list[BusyRow]:
    """Measure ``answers`` answers of ``model`` in each case: on one thread and on one per core, alone and beside a busy
    program.

    Raises:
        BenchError: the model cannot be loaded.
    """
    cores = os.cpu_count() or 1
    cases = [(1, "sleep"), *((cores, waiting) for waiting in POLICIES)] if cores > 1 else [(1, "sleep")]
    rows = []
    for neighbours in (0, 1):
        with _neighbours(neighbours):
            for threads, waiting in cases:
                seconds = sorted(_seconds(model, threads, waiting, answers))
                median = seconds[len(seconds) // 2]
                rows.append(BusyRow(threads, waiting, neighbours, 1e3 * median, 1e3 * seconds[-1]))
    return rows


def _seconds(model: str, threads: int, waiting: str, answers: int) -> list[float]:
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, model, str(threads), str(answers)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_WAIT_POLICY": POLICIES[waiting]},
    )
    if child.returncode:
        raise BenchError(f"{model} could not be asked: {child.stderr.strip().splitlines()[-1]}")
    found: list[float] = json.loads(child.stdout)
    return found


@contextmanager
def _neighbours(count: int) -> Iterator[None]:
    started = [subprocess.Popen([sys.executable, "-c", _NEIGHBOUR % os.getpid()]) for _ in range(count)]
    try:
        yield
    finally:
        for neighbour in started:
            neighbour.kill()
            neighbour.wait()
