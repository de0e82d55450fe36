"""Responses in waves: all at once where nothing speaks against it, else a few first and more as time and need allow."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from acs_core.agreement import FIRST, MORE, settled
from acs_core.candidates import find_candidates
from acs_core.deadline import Deadline, Pace
from acs_core.drawing import Greedy
from acs_core.lvlm.base import LVLM
from acs_core.reading import Reading
from acs_core.sampling import Samples, draw_more, write
from acs_core.types import Candidate, Response, SamplingConfig, ShouldStop

_CAREFUL = 1.2  # a wave is begun only if its expected time, times this, is left


@dataclass(frozen=True)
class Answers:
    """What was drawn for one prompt, and sentences on what was not."""

    samples: Samples
    candidates: tuple[Candidate, ...]
    responses: tuple[Response, ...]
    skipped: tuple[str, ...] = ()


def draw_answers(
    lvlm: LVLM,
    reading: Reading,
    config: SamplingConfig,
    seeds: Sequence[int],
    *,
    deadline: Deadline,
    pace: Pace,
    should_stop: ShouldStop | None = None,
    token_entropy: bool = False,
) -> tuple[Answers, ...]:
    """Up to ``config.num_samples`` responses to each prompt of ``reading``, with the seed of each.

    With ``config.auto`` a prompt gets no more once its responses agree (:func:`acs_core.agreement.settled`). With a
    deadline, waves are small unless ``pace`` knows that one fits, and the running one is cut when time is over.
    ``token_entropy`` keeps that of every token. Raises Cancelled.
    """
    drawn: list[Answers | None] = [None] * len(reading.prompts)
    open_prompts = list(range(len(reading.prompts)))
    start = 0
    while open_prompts and start < config.num_samples:
        rows = _next_wave(start, config, len(open_prompts), deadline, pace)
        if rows is None:
            break
        began = time.perf_counter()
        wave = draw_more(
            lvlm,
            reading.only(open_prompts),
            config,
            [seeds[k] for k in open_prompts],
            rows,
            should_stop=should_stop,
            cut_when=deadline.passed if deadline.is_set else None,
            token_entropy=token_entropy,
        )
        if not deadline.passed():
            pace.note_wave(len(rows) * len(open_prompts), (time.perf_counter() - began) * 1e3)
        for k, samples in zip(open_prompts, wave, strict=True):
            before = drawn[k]
            together = before.samples.extended(samples) if before else samples
            candidates, responses = find_candidates(lvlm, reading.prompts[k], together)
            drawn[k] = Answers(together, candidates, responses)
        start = rows.stop
        if config.auto:
            open_prompts = [k for k in open_prompts if not _is_settled(drawn[k])]
    return tuple(_told(answers, config, deadline) for answers in drawn if answers is not None)


def greedy_answers(
    lvlm: LVLM,
    reading: Reading,
    limit: int,
    deadline: Deadline,
    should_stop: ShouldStop | None = None,
    token_entropy: bool = False,
) -> tuple[Answers, ...]:
    """The most likely response of at most ``limit`` tokens to each prompt, as far as time allows. Raises Cancelled."""
    cut_when = deadline.passed if deadline.is_set else None
    written = write(
        lvlm, reading, Greedy(), 1, limit, should_stop=should_stop, cut_when=cut_when, token_entropy=token_entropy
    )
    return tuple(
        _told(Answers(samples, *find_candidates(lvlm, prompt, samples)), SamplingConfig(num_samples=1), deadline)
        for prompt, samples in zip(reading.prompts, written, strict=True)
    )


def _next_wave(start: int, config: SamplingConfig, prompts: int, deadline: Deadline, pace: Pace) -> range | None:
    """The responses to draw next, None where there is no time for any more. The first wave is always tried."""
    whole = range(start, config.num_samples)
    small = small_wave(start, config.num_samples)
    if not deadline.is_set:
        return small if config.auto else whole
    fits = [rows for rows in (whole, small) if _fits(rows, prompts, deadline, pace)]
    if fits:
        return small if config.auto else fits[0]
    return small if start == 0 else None


def small_wave(start: int, most: int) -> range:
    """The wave that begins with response ``start`` where up to ``most`` are drawn a few at a time."""
    stop = start + (MORE if start else FIRST)
    return range(start, most if stop >= most - 1 else stop)  # no wave of a single straggler


def _fits(rows: range, prompts: int, deadline: Deadline, pace: Pace) -> bool:
    expected = pace.wave_ms(len(rows) * prompts)
    return expected is not None and expected * _CAREFUL <= deadline.left_ms()


def _is_settled(answers: Answers | None) -> bool:
    return answers is not None and settled(answers.candidates, answers.responses)


def _told(answers: Answers, config: SamplingConfig, deadline: Deadline) -> Answers:
    """``answers`` with what was skipped, in words."""
    said = []
    n = answers.samples.num_samples
    missing = config.num_samples - n
    cut = sum(not done for done in answers.samples.finished) if deadline.passed() else 0
    if missing and config.auto and _is_settled(answers):
        said.append(f"{missing} of {config.num_samples} responses were not needed: the first {n} agree")
    elif missing:
        said.append(f"{missing} of {config.num_samples} responses were not begun: the deadline is {deadline.ms:.0f} ms")
    if cut:
        said.append(f"{cut} of {n} responses were cut off: the deadline is {deadline.ms:.0f} ms")
    return replace(answers, skipped=tuple(said))
