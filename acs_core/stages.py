"""The stages of one call: prompt, reading, sampling, attention, selection, and a second look where one is asked for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from acs_core.asked import Asked
from acs_core.attention import AttentionNeeds, Evidence, capture
from acs_core.choice import Choice
from acs_core.deadline import Deadline, Pace, StageClock
from acs_core.geometry import Box
from acs_core.judging import Judge
from acs_core.lvlm.base import LVLM, Prompt
from acs_core.reading import Reading, read
from acs_core.sampling import Samples, fresh_seed
from acs_core.second_look import SecondLook, Seen, Window, second_seed, window_of
from acs_core.selection import FirstInOrder, Selector
from acs_core.types import SECOND_LOOK, GroundingResult, SamplingConfig
from acs_core.waves import Answers, draw_answers, greedy_answers


def run_stages(
    lvlm: LVLM, judge: Judge, pace: Pace, asked: Asked, config: SamplingConfig, model_name: str
) -> tuple[GroundingResult, ...]:
    """One result per phrase. Responses are drawn as ``config`` says, which may ask for fewer than ``asked`` does.

    Raises:
        Cancelled: ``asked.should_stop`` returned True.
    """
    clock = StageClock(asked.start, asked.should_stop, asked.on_stage)
    answers = _first_look(lvlm, judge, pace, asked, config, clock)
    if asked.second_look:
        clock.begin(SECOND_LOOK)
        answers = _second_looks(lvlm, judge, pace, asked, config, answers, clock.worked_ms)
    timing = clock.end()
    pace.note_after(timing["attention"] + timing["selection"])
    return tuple(
        GroundingResult(
            phrase=phrase,
            image_size=asked.image_size,
            detections=answer.choice.detections,
            candidates=answer.choice.candidates,
            responses=answer.seen.responses,
            selector=judge.selector.name,
            score_kind=judge.kind_of(answer.window is not None),
            model=model_name,
            revision=lvlm.revision,
            seed=answer.seed,
            reason=answer.choice.reason,
            timing_ms=timing,
            skipped=answer.skipped,
            attention=answer.attention,
            window=answer.window,
        )
        for phrase, answer in zip(asked.phrases, answers, strict=True)
    )


@dataclass(frozen=True)
class _Answer:
    """What is known about one phrase. It holds no keys and queries, of which a device's memory is full: a second look
    needs the room."""

    seen: Seen
    choice: Choice
    seed: int
    skipped: tuple[str, ...]
    attention: np.ndarray | None = None
    window: Box | None = None


def _first_look(
    lvlm: LVLM, judge: Judge, pace: Pace, asked: Asked, config: SamplingConfig, clock: StageClock
) -> list[_Answer]:
    selector = judge.selector
    clock.begin("prompt")
    prompts = lvlm.prepare_many(asked.image, asked.phrases)
    clock.begin("reading")
    reading = read(lvlm, prompts, asked.should_stop)
    clock.begin("sampling")
    drawn = _answer(lvlm, selector, reading, config, asked, pace)
    clock.begin("attention")
    seen = [
        Seen(a.candidates, a.responses, capture(lvlm, prompt, a.samples, a.candidates, selector.needs))
        for prompt, a in zip(prompts, drawn, strict=True)
    ]
    clock.begin("selection")
    choices = [_choose(judge, asked, s) for s in seen]
    looks: list[np.ndarray | None] = [None] * len(prompts)
    if asked.with_attention:
        looks = [
            attention_of(lvlm, selector, prompt, a.samples, choice)
            for prompt, a, choice in zip(prompts, drawn, choices, strict=True)
        ]
    return [
        _Answer(s, choice, a.samples.seed, a.skipped, look)
        for s, choice, a, look in zip(seen, choices, drawn, looks, strict=True)
    ]


def _second_looks(
    lvlm: LVLM,
    judge: Judge,
    pace: Pace,
    asked: Asked,
    config: SamplingConfig,
    answers: Sequence[_Answer],
    expected_ms: float,
) -> list[_Answer]:
    """``answers`` with what a second look at each adds, one after the other, since each has a window of its own.
    ``expected_ms``: what one will take, at most."""
    found = []
    deadline = Deadline(asked.deadline_ms, asked.start)
    for phrase, answer in zip(asked.phrases, answers, strict=True):
        window, why = _window(asked, judge.selector, answer.choice)
        if window and deadline.left_ms() < expected_ms:
            window, why = None, f"no second look: the deadline is {deadline.ms:.0f} ms"
        second = None
        began = time.perf_counter()
        if window:
            try:
                second = _look_again(lvlm, judge.selector, pace, asked, config, phrase, window, answer.seed)
            except torch.OutOfMemoryError:
                why = f"no second look: {lvlm.device} ran out of memory"
        if window is None or second is None:
            found.append(replace(answer, skipped=(*answer.skipped, why)))
            continue
        expected_ms = (time.perf_counter() - began) * 1e3
        seen = answer.seen.with_second(second[0], window)
        found.append(
            replace(
                answer,
                seen=seen,
                choice=_choose(judge, asked, seen, looked_again=True),
                skipped=(*answer.skipped, *(f"second look: {said}" for said in second[1])),
                window=window.box,
            )
        )
    return found


def _window(asked: Asked, selector: Selector, choice: Choice) -> tuple[Window | None, str]:
    """Where to look again, or in words why not to."""
    if isinstance(selector, FirstInOrder):
        return None, f"no second look: {selector.name} takes the first answer in any case"
    if asked.multiple:
        return None, "no second look: several objects are asked for, and it looks at one"
    if not choice.candidates or asked.second_look is None:
        return None, "no second look: the first found nothing to look at"
    window = window_of(choice, asked.image_size, asked.second_look)
    return window, "" if window else "no second look: the object is large enough in the picture"


def _look_again(
    lvlm: LVLM,
    selector: Selector,
    pace: Pace,
    asked: Asked,
    config: SamplingConfig,
    phrase: str,
    window: Window,
    seed: int,
) -> tuple[Seen, tuple[str, ...]]:
    """What is seen in ``window``, boxes in the window, and sentences on what was left out."""
    look = asked.second_look or SecondLook()
    prompt = lvlm.prepare(window.enlarged(asked.image), phrase)
    reading = read(lvlm, [prompt], asked.should_stop)
    fewer = replace(config, num_samples=look.samples_after(config.num_samples), seed=second_seed(seed))
    (drawn,) = _answer(lvlm, selector, reading, fewer, asked, pace)
    evidence = capture(lvlm, prompt, drawn.samples, drawn.candidates, selector.needs)
    return Seen(drawn.candidates, drawn.responses, evidence), drawn.skipped


def _choose(judge: Judge, asked: Asked, seen: Seen, looked_again: bool = False) -> Choice:
    return judge.choose(
        seen.candidates,
        seen.responses,
        seen.evidence,
        asked.image_size,
        multiple=asked.multiple,
        min_score=asked.min_score,
        min_votes=asked.min_votes,
        looked_again=looked_again,
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
