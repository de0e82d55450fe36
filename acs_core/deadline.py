"""Time that a caller gives, what is known about how long things take, and the clock of one call."""

from __future__ import annotations

import math
import time

from acs_core.errors import Cancelled
from acs_core.types import OnStage, ShouldStop


class Deadline:
    """A moment ``ms`` milliseconds after ``start`` (of ``time.perf_counter``), or never with None.

    ``reserve_ms`` is kept back for what still has to be done after sampling.
    """

    def __init__(self, ms: float | None, start: float, reserve_ms: float = 0.0) -> None:
        self.ms = ms
        self._end = math.inf if ms is None else start + ms / 1e3
        self.reserve_ms = reserve_ms

    @property
    def is_set(self) -> bool:
        """Whether there is a deadline at all."""
        return self.ms is not None

    def left_ms(self) -> float:
        """Milliseconds left for sampling, negative when it is over, infinite without a deadline."""
        return (self._end - time.perf_counter()) * 1e3 - self.reserve_ms

    def passed(self) -> bool:
        """Whether sampling must stop."""
        return self.is_set and self.left_ms() <= 0


class Pace:
    """What recent calls took: milliseconds for so many responses in one batch, and for all that follows sampling.

    One slow call is forgotten by half with each later one of its size.
    """

    def __init__(self) -> None:
        self._waves: dict[int, float] = {}
        self._after = 0.0

    def note_wave(self, rows: int, ms: float) -> None:
        """``rows`` responses in one batch took ``ms``."""
        self._waves[rows] = (self._waves.get(rows, ms) + ms) / 2

    def note_after(self, ms: float) -> None:
        """Attention and selection took ``ms``."""
        self._after = (self._after + ms) / 2 if self._after else ms

    @property
    def after_ms(self) -> float:
        """What attention and selection will take; 0 before the first call."""
        return self._after

    def wave_ms(self, rows: int) -> float | None:
        """What ``rows`` responses in one batch will take, at most; None where nothing like it was seen.

        From smaller batches the time is scaled up in full, although rows share most of a step.
        """
        smaller = [ms * rows / n for n, ms in self._waves.items() if n <= rows]
        # The least of them: a slow call long ago must not forbid what later, smaller ones show to be possible.
        return min(smaller, default=None)


class StageClock:
    """Wall time per stage of a call that began at ``start``, and the place where a stop is noticed between stages."""

    def __init__(self, start: float, should_stop: ShouldStop | None, on_stage: OnStage | None) -> None:
        self._start, self._should_stop, self._on_stage = start, should_stop, on_stage
        self._stage, self._last = "waiting", start
        self._laps: dict[str, float] = {}

    def begin(self, stage: str) -> None:
        """The stage before ends, and this one begins. Raises Cancelled where the caller stops."""
        self._lap()
        if self._should_stop and self._should_stop():
            raise Cancelled(f"stopped before the stage {stage}")
        self._stage = stage
        if self._on_stage:
            self._on_stage(stage)

    @property
    def worked_ms(self) -> float:
        """What the stages that ended took, without the wait for other calls."""
        return sum(ms for stage, ms in self._laps.items() if stage != "waiting")

    def end(self) -> dict[str, float]:
        """Milliseconds of each stage, and their total."""
        self._lap()
        return {**self._laps, "total": (self._last - self._start) * 1e3}

    def _lap(self) -> None:
        now = time.perf_counter()
        self._laps[self._stage] = (now - self._last) * 1e3
        self._last = now
