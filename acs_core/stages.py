"""The stages of one call: prompt, reading, sampling, attention, selection."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from acs_core.asked import Asked
from acs_core.attention import AttentionNeeds, Evidence, capture
from acs_core.choice import Choice
from acs_core.deadline import Deadline, Pace
from acs_core.errors import Cancelled
from acs_core.judging import Judge
from acs_core.lvlm.base import LVLM, Prompt
from acs_core.reading import Reading, read
from acs_core.sampling import Samples, fresh_seed
from acs_core.selection import Selector
from acs_core.types import GroundingResult, SamplingConfig
from acs_core.waves import Answers, draw_answers, greedy_answers


def run_stages(
    lvlm: LVLM, judge: Judge, pace: Pace, asked: Asked, config: SamplingConfig, model_name: str
) -> tuple[GroundingResult, ...]:
    """One result per phrase. Responses are drawn as ``config`` says, which may ask for fewer than ``asked`` does.

    Raises:
        Cancelled: ``asked.should_stop`` returned True.
    """
    selector = judge.selector
    clock = _Clock(asked)
    clock.begin("prompt")
    prompts = lvlm.prepare_many(asked.image, asked.phrases)
    clock.begin("reading")
    reading = read(lvlm, prompts, asked.should_stop)
    clock.begin("sampling")
    answers = _answer(lvlm, selector, reading, config, asked, pace)
    clock.begin("attention")
    evidence = [
        capture(lvlm, prompt, a.samples, a.candidates, selector.needs)
        for prompt, a in zip(prompts, answers, strict=True)
    ]
    clock.begin("selection")
    choices = [
        judge.choose(
            a.candidates,
            a.responses,
            seen,
            asked.image_size,
            multiple=asked.multiple,
            min_score=asked.min_score,
            min_votes=asked.min_votes,
        )
        for a, seen in zip(answers, evidence, strict=True)
    ]
    looks: list[np.ndarray | None] = [None] * len(prompts)
    if asked.with_attention:
        looks = [
            attention_of(lvlm, selector, prompt, a.samples, choice)
            for prompt, a, choice in zip(prompts, answers, choices, strict=True)
        ]
    timing = clock.end()
    pace.note_after(timing["attention"] + timing["selection"])
    return tuple(
        GroundingResult(
            phrase=prompt.phrase,
            image_size=prompt.image_size,
            detections=choice.detections,
            candidates=choice.candidates,
            responses=a.responses,
            selector=selector.name,
            score_kind=judge.score_kind,
            model=model_name,
            revision=lvlm.revision,
            seed=a.samples.seed,
            reason=choice.reason,
            timing_ms=timing,
            skipped=a.skipped,
            attention=look,
        )
        for prompt, a, choice, look in zip(prompts, answers, choices, looks, strict=True)
    )


def _answer(
    lvlm: LVLM, selector: Selector, reading: Reading, config: SamplingConfig, asked: Asked, pace: Pace
) -> tuple[Answers, ...]:
    deadline = Deadline(asked.deadline_ms, asked.start, pace.after_ms)
    if selector.greedy_decoding:
        return greedy_answers(
            lvlm, reading, config.max_new_tokens, deadline, asked.should_stop, selector.needs.token_entropy
        )
    seed = fresh_seed() if config.seed is None else config.seed
    seeds = [seed] * len(reading.prompts)
    return draw_answers(
        lvlm,
        reading,
        config,
        seeds,
        deadline=deadline,
        pace=pace,
        should_stop=asked.should_stop,
        token_entropy=selector.needs.token_entropy,
    )


def attention_of(lvlm: LVLM, selector: Selector, prompt: Prompt, samples: Samples, choice: Choice) -> np.ndarray | None:
    """(Hv, Wv): the mean map of the heads that the selector reads (of all, where it names none) at the coordinates of
    the best detection or, without one, of the best candidate. None where there is no candidate."""
    if not choice.candidates:
        return None
    best = max(choice.candidates, key=lambda c: c.quality)
    shown = choice.candidates[choice.detections[0].candidate] if choice.detections else best
    needs = AttentionNeeds(maps=True, step=selector.needs.step)
    return _mean_map(capture(lvlm, prompt, samples, [shown], needs), selector.needs.heads)


def _mean_map(evidence: Evidence, heads: Sequence[Sequence[tuple[int, int]]] | None) -> np.ndarray | None:
    if evidence.maps is None:
        return None
    (maps,) = evidence.maps  # (4, L, K, Hv, Wv)
    if heads is None:
        return np.asarray(maps.mean(axis=(0, 1, 2)))
    return np.mean([maps[c, layer, head] for c, pairs in enumerate(heads) for layer, head in pairs], axis=0)


class _Clock:
    """Wall time per stage, and the place where a stop is noticed between stages."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._stage, self._last = "waiting", asked.start
        self._laps: dict[str, float] = {}

    def begin(self, stage: str) -> None:
        self._lap()
        if self._asked.should_stop and self._asked.should_stop():
            raise Cancelled(f"stopped before the stage {stage}")
        self._stage = stage
        if self._asked.on_stage:
            self._asked.on_stage(stage)

    def end(self) -> dict[str, float]:
        self._lap()
        return {**self._laps, "total": (self._last - self._asked.start) * 1e3}

    def _lap(self) -> None:
        now = time.perf_counter()
        self._laps[self._stage] = (now - self._last) * 1e3
        self._last = now
