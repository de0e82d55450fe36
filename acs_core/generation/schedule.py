"""Scheduling of responses: waves, a time budget, and early stopping once the responses agree.

Without a deadline and without ``SamplingConfig.auto`` all responses are generated in one wave; otherwise a few first,
and more while time allows and they do not agree.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from acs_core.errors import Cancelled
from acs_core.generation.candidates import find_candidates
from acs_core.generation.generate import Generations, draw_more, generate
from acs_core.generation.prefill import PrefillState
from acs_core.generation.rows import IsComplete
from acs_core.generation.speculation import drafts_of
from acs_core.generation.token_sampler import GreedySampler
from acs_core.geometry import overlaps
from acs_core.lvlm.base import LVLM
from acs_core.types import BROKEN, Candidate, OnStage, Response, SamplingConfig, ShouldStop, deadline_text

# Chosen on the validation split of the rendered world, 1,800 objects of all sizes with tiny-internvl and 1,230 with
# tiny-qwen2.5-vl: of the rules that save a third of the responses, this one costs acs-free and acs-fusion the least
# accuracy. With FIRST = 4, three of four responses agree by chance too often; with IoU 0.5, inaccurate boxes agree.
FIRST = 5  # responses of the first wave
MORE = 5  # responses of each later wave
SETTLED_SHARE = 0.75  # of the responses so far
SETTLED_IOU = 0.6
_CAREFUL = 1.2  # safety factor on the expected time of a wave


class Deadline:
    """A deadline ``ms`` milliseconds after ``start``.

    Args:
        ms: milliseconds; None for no deadline.
        start: time of ``time.perf_counter``, in seconds.
        reserve_ms: milliseconds reserved for the stages after sampling.
    """

    def __init__(self, ms: float | None, start: float, reserve_ms: float = 0.0) -> None:
        self.ms = ms
        self._end = math.inf if ms is None else start + ms / 1e3
        self.reserve_ms = reserve_ms

    @property
    def is_set(self) -> bool:
        """Whether there is a deadline."""
        return self.ms is not None

    def left_ms(self) -> float:
        """Return the milliseconds left for sampling: negative after the deadline, infinite without one."""
        return (self._end - time.perf_counter()) * 1e3 - self.reserve_ms

    def passed(self) -> bool:
        """Return whether sampling must stop."""
        return self.is_set and self.left_ms() <= 0


class ThroughputEstimate:
    """Running estimate of the time of a wave, by number of rows, and of the stages after sampling.

    Each new measurement halves the weight of the earlier ones of the same size.
    """

    def __init__(self) -> None:
        self._waves: dict[int, float] = {}
        self._after = 0.0

    def note_wave(self, rows: int, ms: float) -> None:
        """Record that a batch of ``rows`` responses took ``ms`` milliseconds."""
        self._waves[rows] = (self._waves.get(rows, ms) + ms) / 2

    def note_after(self, ms: float) -> None:
        """Record that attention and selection took ``ms`` milliseconds."""
        self._after = (self._after + ms) / 2 if self._after else ms

    @property
    def after_ms(self) -> float:
        """Expected time of attention and selection in milliseconds; 0 before the first call."""
        return self._after

    def wave_ms(self, rows: int) -> float | None:
        """Return an upper estimate of the milliseconds for a batch of ``rows`` responses; None without a measurement.

        Measurements of smaller batches are scaled linearly, although rows share most of a step.
        """
        smaller = [ms * rows / n for n, ms in self._waves.items() if n <= rows]
        # The minimum, so that an old slow call does not block a wave that later, smaller ones show to be possible.
        return min(smaller, default=None)


class StageClock:
    """Wall time per stage of a call, and the check for cancellation between stages.

    Args:
        start: time of ``time.perf_counter`` at which the call began, in seconds.
        should_stop: checked at the beginning of each stage; True cancels the call.
        on_stage: called with the name of each stage when it begins.
    """

    def __init__(self, start: float, should_stop: ShouldStop | None, on_stage: OnStage | None) -> None:
        self._start, self._should_stop, self._on_stage = start, should_stop, on_stage
        self._stage, self._last = "waiting", start
        self._laps: dict[str, float] = {}

    def begin(self, stage: str) -> None:
        """End the current stage and begin ``stage``.

        Raises:
            Cancelled: ``should_stop`` returned True.
        """
        self._lap()
        if self._should_stop and self._should_stop():
            raise Cancelled(f"stopped before the stage {stage}")
        self._stage = stage
        if self._on_stage:
            self._on_stage(stage)

    @property
    def worked_ms(self) -> float:
        """Milliseconds of the stages that ended, without the wait for other calls."""
        return sum(ms for stage, ms in self._laps.items() if stage != "waiting")

    def end(self) -> dict[str, float]:
        """End the current stage and return the milliseconds of each stage and their total."""
        self._lap()
        return {**self._laps, "total": (self._last - self._start) * 1e3}

    def _lap(self) -> None:
        now = time.perf_counter()
        self._laps[self._stage] = (now - self._last) * 1e3
        self._last = now


def should_stop_early(
    candidates: Sequence[Candidate], responses: Sequence[Response], share: float = SETTLED_SHARE
) -> bool:
    """Return whether at least ``share`` of the responses agree.

    They agree if a box overlaps (IoU >= 0.6) with a box of that many responses, its own included, or if that many
    responses have no box. Never True for fewer than :data:`FIRST` responses, of which two may agree by chance.

    Args:
        candidates: candidates of the responses.
        responses: the responses so far.
        share: required share, in [0, 1].
    """
    drawn = len(responses)
    if drawn < FIRST:
        return False
    silent = sum(r.finished and r.num_boxes == 0 for r in responses)  # unfinished responses do not count
    return max(silent, _supporters(candidates)) >= share * drawn


def _supporters(candidates: Sequence[Candidate]) -> int:
    """Return the largest number of responses that any box agrees with, its own included."""
    if not candidates:
        return 0
    agree = overlaps([c.box for c in candidates], SETTLED_IOU)  # (C, C)
    of = np.array([c.response for c in candidates])
    return max(len(set(of[row].tolist())) for row in agree)


@dataclass(frozen=True)
class ScheduledGenerations:
    """Responses to one prompt, with their candidates.

    Attributes:
        samples: the generated responses.
        candidates: their valid boxes.
        responses: summary of each response.
        skipped: sentences on responses that were not generated or were cut off.
    """

    samples: Generations
    candidates: tuple[Candidate, ...]
    responses: tuple[Response, ...]
    skipped: tuple[str, ...] = ()

    def cut_off(self, max_new_tokens: int) -> tuple[bool, ...]:
        """Return which responses were cut off by the deadline, and not by their limit of ``max_new_tokens``."""
        ended = zip(self.samples.finished, self.samples.response_ids, strict=True)
        return tuple(not done and len(ids) < max_new_tokens for done, ids in ended)

    def counted(self, max_new_tokens: int) -> int:
        """Return the number of responses without those that the deadline cut off before their first box: whether they
        would have had one is not known."""
        cut = zip(self.cut_off(max_new_tokens), self.responses, strict=True)
        return sum(bool(response.num_boxes) or not early for early, response in cut)


def sample_on_schedule(
    lvlm: LVLM,
    state: PrefillState,
    config: SamplingConfig,
    seeds: Sequence[int],
    *,
    deadline: Deadline,
    throughput: ThroughputEstimate,
    should_stop: ShouldStop | None = None,
    token_statistics: bool = False,
    is_complete: IsComplete | None = None,
) -> tuple[ScheduledGenerations, ...]:
    """Sample up to ``config.num_samples`` responses to each prompt of ``state``.

    With ``config.auto``, a prompt gets no further responses once they agree (:func:`should_stop_early`). With a
    deadline, the waves are small unless a larger one is expected to fit, and the running wave is cut off at the
    deadline.

    Args:
        lvlm: the model.
        state: prefill of the prompts.
        config: sampling parameters.
        seeds: seed of each prompt.
        deadline: when to stop.
        throughput: expected time of a wave; updated.
        should_stop: checked once per forward; True cancels the call.
        token_statistics: whether to keep the entropy and log-probability of every token.
        is_complete: ends a response early; see :func:`acs_core.generation.generate.generate`.

    Raises:
        Cancelled: ``should_stop`` returned True.
    """
    drawn: list[ScheduledGenerations | None] = [None] * len(state.prompts)
    open_prompts = list(range(len(state.prompts)))
    start = 0
    while open_prompts and start < config.num_samples:
        rows = _next_wave(start, config, len(open_prompts), deadline, throughput)
        if rows is None:
            break
        began = time.perf_counter()
        wave = draw_more(
            lvlm,
            state.only(open_prompts),
            config,
            [seeds[k] for k in open_prompts],
            rows,
            should_stop=should_stop,
            cut_when=deadline.passed if deadline.is_set else None,
            token_statistics=token_statistics,
            drafts=drafts_of(lvlm) if config.speculation else None,
            is_complete=is_complete,
        )
        broken = any(samples.broken for samples in wave)
        if not deadline.passed() and not broken:
            throughput.note_wave(len(rows) * len(open_prompts), (time.perf_counter() - began) * 1e3)
        for k, samples in zip(open_prompts, wave, strict=True):
            before = drawn[k]
            together = before.samples.extended(samples) if before else samples
            candidates, responses = find_candidates(lvlm, state.prompts[k], together)
            drawn[k] = ScheduledGenerations(together, candidates, responses)
        if broken:
            break
        start = rows.stop
        if config.auto:
            open_prompts = [k for k in open_prompts if not _is_settled(drawn[k])]
    return tuple(_told(answers, config, deadline) for answers in drawn if answers is not None)


def greedy_on_schedule(
    lvlm: LVLM,
    state: PrefillState,
    config: SamplingConfig,
    deadline: Deadline,
    should_stop: ShouldStop | None = None,
    token_statistics: bool = False,
    is_complete: IsComplete | None = None,
) -> tuple[ScheduledGenerations, ...]:
    """Decode the most likely response to each prompt, cut off at the deadline; only ``config.max_new_tokens`` and
    ``config.speculation`` are used.

    Raises:
        Cancelled: ``should_stop`` returned True.
    """
    cut_when = deadline.passed if deadline.is_set else None
    written = generate(
        lvlm,
        state,
        GreedySampler(),
        1,
        config.max_new_tokens,
        should_stop=should_stop,
        cut_when=cut_when,
        token_statistics=token_statistics,
        drafts=drafts_of(lvlm) if config.speculation else None,
        is_complete=is_complete,
    )
    return tuple(
        _told(
            ScheduledGenerations(samples, *find_candidates(lvlm, prompt, samples)),
            replace(config, num_samples=1, auto=False),
            deadline,
        )
        for prompt, samples in zip(state.prompts, written, strict=True)
    )


def _next_wave(
    start: int, config: SamplingConfig, prompts: int, deadline: Deadline, throughput: ThroughputEstimate
) -> range | None:
    """Return the indices of the responses to sample next; None if the time is not enough. The first wave always
    runs."""
    whole = range(start, config.num_samples)
    small = wave_size(start, config.num_samples)
    if not deadline.is_set:
        return small if config.auto else whole
    fits = [rows for rows in (whole, small) if _fits(rows, prompts, deadline, throughput)]
    if fits:
        return small if config.auto else fits[0]
    return small if start == 0 else None


def wave_size(start: int, most: int) -> range:
    """Return the indices of the wave that begins with response ``start``, if up to ``most`` are sampled in small
    waves."""
    stop = start + (MORE if start else FIRST)
    return range(start, most if stop >= most - 1 else stop)  # avoids a last wave of one response


def _fits(rows: range, prompts: int, deadline: Deadline, throughput: ThroughputEstimate) -> bool:
    expected = throughput.wave_ms(len(rows) * prompts)
    return expected is not None and expected * _CAREFUL <= deadline.left_ms()


def _is_settled(answers: ScheduledGenerations | None) -> bool:
    return answers is not None and should_stop_early(answers.candidates, answers.responses)


def _told(answers: ScheduledGenerations, config: SamplingConfig, deadline: Deadline) -> ScheduledGenerations:
    """Return ``answers`` with sentences on the responses that were skipped."""
    said = []
    n = answers.samples.num_samples
    missing = config.num_samples - n
    late = deadline.passed() and not answers.samples.broken
    cut = sum(answers.cut_off(config.max_new_tokens)) if late else 0
    if answers.samples.broken:
        said.append(f"sampling ended early: {BROKEN}")
    elif missing and config.auto and _is_settled(answers):
        said.append(f"{missing} of {config.num_samples} responses were not needed: the first {n} agree")
    elif missing:
        said.append(f"{missing} of {config.num_samples} responses were not begun: {deadline_text(deadline.ms)}")
    if cut:
        said.append(f"{cut} of {n} responses were cut off: {deadline_text(deadline.ms)}")
    return replace(answers, skipped=tuple(said))
