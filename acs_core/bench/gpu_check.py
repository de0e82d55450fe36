"""The measurements of ``make gpu-check``: every part with a budget of seconds, within the time of the whole run.

On a CPU the same parts run with small models, to show that they would run.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import Lock, Timer
from typing import Any

import torch

from acs_core.bench.goals import GPU_GOALS, SAMPLES, SHARE, STEP, TOGETHER, Goal, with_values
from acs_core.bench.limits import measure_limits
from acs_core.bench.markdown import MAX_CELL
from acs_core.bench.options import measure_options
from acs_core.bench.phrases import compare_phrases
from acs_core.bench.subject import Subject, about_frame, load_subject
from acs_core.bench.whole import compare_whole
from acs_core.plain_text import one_line

Frame = tuple[int, int]
GPU_SHAPES, GPU_FRAMES = ("7b", "8b"), ((640, 480), (1920, 1080))
CPU_SHAPES, CPU_FRAMES = ("small", "tiny-internvl"), ((224, 224), (448, 448))
PHRASES = 4
WHOLE_WAYS, TEXT_WAYS, CTRANSLATE2_WAYS = "abcdejf", "ig", "eih"
# Seconds of a part.
BUDGETS = {"whole": 60.0, "limits": 25.0, "phrases": 20.0, "options": 25.0, "text": 30.0, "ctranslate2": 60.0}
FAILED = "failed"
NEW_TOKENS = 40  # of a response where they are not answers


@dataclass(frozen=True)
class CheckPlan:
    """What is measured.

    Attributes:
        device: the torch device.
        shapes: shapes of random weights, or models.
        frames: (width, height) of the images in pixels.
        samples: number of responses N.
        repeats: runs of each measurement.
        seconds: time of the whole run, from ``started`` on.
        started: ``time.monotonic()`` of its begin.
    """

    device: torch.device
    shapes: tuple[str, ...]
    frames: tuple[Frame, ...]
    samples: int
    repeats: int
    seconds: float
    started: float

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.started + self.seconds - time.monotonic()


@dataclass(frozen=True)
class Found:
    """Numbers of a part as JSON values, and the ratios that it has goals for."""

    numbers: dict[str, Any]
    ratios: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """A part of the run.

    Attributes:
        kind: a key of :data:`BUDGETS`.
        shape: the model.
        frame: "WIDTHxHEIGHT" of the image.
        run: measures; its argument says whether there is time to go on.
    """

    kind: str
    shape: str
    frame: str
    run: Callable[[Callable[[], bool]], Found]

    @property
    def name(self) -> str:
        """Name of the part, such as "whole, 7b, 640x480"."""
        return f"{self.kind}, {self.shape}, {self.frame}"


@dataclass(frozen=True)
class PartResult:
    """Result of a part.

    Attributes:
        kind: kind of the part.
        shape: the model.
        frame: size of the image.
        seconds: time that it took; 0 if it did not run.
        left_out: why it has no numbers; empty if it has.
        found: its numbers.
    """

    kind: str
    shape: str
    frame: str
    seconds: float = 0.0
    left_out: str = ""
    found: Found = field(default_factory=lambda: Found({}))

    @classmethod
    def of(cls, part: Part, seconds: float = 0.0, left_out: str = "", found: Found | None = None) -> PartResult:
        """Return the result of ``part``."""
        return cls(part.kind, part.shape, part.frame, seconds, left_out, found or Found({}))

    @property
    def goals(self) -> tuple[Goal, ...]:
        """The goals of parts of this kind, with the measured ratios; without them if the part was left out."""
        return with_values(GPU_GOALS.get(self.kind, ()), self.found.ratios, f"{self.shape}, {self.frame}")

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            **{name: getattr(self, name) for name in ("kind", "shape", "frame", "seconds", "left_out")},
            "numbers": self.found.numbers,
            "goals": [goal.to_dict() for goal in self.goals],
        }


def parts_of(plan: CheckPlan) -> list[Part]:
    """Return all parts, those of the language model alone last: the conversion of a large model takes long."""
    held = _Held(plan)
    parts = []
    for shape in plan.shapes:
        for frame in plan.frames:
            make = partial(Part, shape=shape, frame=f"{frame[0]}x{frame[1]}")
            parts.append(make("whole", run=partial(_whole, plan, held, shape, frame, WHOLE_WAYS)))
            parts.append(make("limits", run=partial(_limits, plan, held, shape, frame)))
        frame = plan.frames[0]
        make = partial(Part, shape=shape, frame=f"{frame[0]}x{frame[1]}")
        parts.append(make("phrases", run=partial(_phrases, plan, held, shape, frame)))
        parts.append(make("options", run=partial(_options, plan, held, shape, frame)))
        parts.append(make("text", run=partial(_whole, plan, held, shape, frame, TEXT_WAYS)))
    frame = plan.frames[0]
    for shape in plan.shapes:
        run = partial(_whole, plan, held, shape, frame, CTRANSLATE2_WAYS)
        parts.append(Part("ctranslate2", shape, f"{frame[0]}x{frame[1]}", run))
    return parts


def run_parts(
    parts: Sequence[Part],
    left: Callable[[], float],
    results: list[PartResult],
    say: Callable[[str], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Run the parts whose budget fits into the time that is ``left``, in order.

    Each result is added to ``results`` when it is known, and before that stands there as one that is still running.
    A part that fails is named with the reason, and the others go on.
    """
    for part in parts:
        budget = BUDGETS[part.kind]
        if left() < budget:
            results.append(PartResult.of(part, left_out=f"its {budget:.0f} s did not fit: {left():.0f} s were left"))
            continue
        say(part.name)
        results.append(PartResult.of(part, left_out="it was still running when the time was over"))
        began = clock()
        try:
            found = part.run(partial(_is_before, began + budget, clock))
            results[-1] = PartResult.of(part, clock() - began, found=found)
        except torch.OutOfMemoryError:
            results[-1] = PartResult.of(part, clock() - began, "out of memory")
        except Exception as error:  # the other parts are still worth their time
            said = one_line(f"{type(error).__name__}: {error}", MAX_CELL)
            results[-1] = PartResult.of(part, clock() - began, f"{FAILED}: {said}")


def _is_before(end: float, clock: Callable[[], float]) -> bool:
    return clock() < end


@contextmanager
def stopped_after(seconds: float, stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` from another thread if the block runs for longer than ``seconds``. It is not called once the block
    has ended."""
    lock = Lock()
    over: list[bool] = []

    def ring() -> None:
        with lock:
            if not over:
                stop()

    timer = Timer(max(seconds, 0.0), ring)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        with lock:  # a stop that has begun ends the process
            over.append(True)
        timer.cancel()


class _Held:
    """The model of the part that runs; one at a time, since two large ones would not fit into memory."""

    def __init__(self, plan: CheckPlan) -> None:
        self._plan = plan
        self._shape = ""
        self._subject: Subject | None = None

    def about(self, shape: str, frame: Frame, phrases: int = 1) -> Subject:
        """Return the model ``shape`` with prompts about an image of ``frame``."""
        if self._subject is None or self._shape != shape:
            self._subject = None
            gc.collect()
            if self._plan.device.type == "cuda":
                torch.cuda.empty_cache()
            self._subject = load_subject(shape, None, 1, str(self._plan.device), "auto", frame)
            self._shape = shape
        return about_frame(self._subject, frame, phrases)


def _whole(plan: CheckPlan, held: _Held, shape: str, frame: Frame, ways: str, may_go_on: Callable[[], bool]) -> Found:
    subject = held.about(shape, frame)
    threads = torch.get_num_threads()
    report = compare_whole(subject, frame, plan.samples, ways, plan.repeats, threads, may_go_on=may_go_on)
    return Found(report.to_dict())


def _limits(plan: CheckPlan, held: _Held, shape: str, frame: Frame, _: Callable[[], bool]) -> Found:
    found = measure_limits(held.about(shape, frame), plan.samples, NEW_TOKENS, plan.repeats)
    numbers = found.to_dict()
    ratios = {STEP: numbers["step / floor"], SAMPLES: numbers["N samples / one"], SHARE: found.looking_share}
    return Found(numbers, ratios)


def _phrases(plan: CheckPlan, held: _Held, shape: str, frame: Frame, _: Callable[[], bool]) -> Found:
    report = compare_phrases(held.about(shape, frame, PHRASES), plan.samples, NEW_TOKENS, plan.repeats)
    return Found(report.to_dict(), {TOGETHER: report.ratio})


def _options(plan: CheckPlan, held: _Held, shape: str, frame: Frame, _: Callable[[], bool]) -> Found:
    return Found(measure_options(held.about(shape, frame), plan.samples, NEW_TOKENS, plan.repeats).to_dict())
