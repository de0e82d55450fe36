"""The stages of one call: prompt, prefill, sampling, attention, selection, and an optional second look."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from acs_core.attention import AttentionNeeds, AttentionRecord, capture
from acs_core.generation.first_box import FirstBoxComplete
from acs_core.generation.generate import Generations, fresh_seed
from acs_core.generation.prefill import PrefillState, prefill
from acs_core.generation.prefix_cache import PrefixCache
from acs_core.generation.schedule import (
    Deadline,
    ScheduledGenerations,
    StageClock,
    ThroughputEstimate,
    greedy_on_schedule,
    sample_on_schedule,
)
from acs_core.generation.speculation import drafts_of
from acs_core.geometry import Box
from acs_core.lvlm.base import LVLM, Prompt
from acs_core.request import GroundingRequest
from acs_core.selection.decision import Decision, mislabelled_as
from acs_core.selection.labels import names_something_else
from acs_core.selection.registry import Selector
from acs_core.selection.scorer import Scorer
from acs_core.selection.second_look import CandidateSet, Window, second_draw
from acs_core.types import (
    BROKEN,
    SECOND_LOOK,
    GroundingResult,
    SamplingConfig,
    SecondLook,
    deadline_text,
    memory_text,
)

DEVICE_BYTES = 512 * 2**20  # of attention maps that stay on the device: seven phrases with ten candidates of a 7B model


def run_pipeline(
    lvlm: LVLM,
    scorer: Scorer,
    throughput: ThroughputEstimate,
    request: GroundingRequest,
    config: SamplingConfig,
    model_name: str,
    revision: str | None,
    prefixes: PrefixCache,
) -> tuple[GroundingResult, ...]:
    """Run all stages of a call.

    Args:
        lvlm: the model.
        scorer: selector and calibrations.
        throughput: time estimates for deadlines; updated.
        request: the call.
        config: sampling parameters; may have fewer responses than those of ``request``.
        model_name: name of the model in results.
        revision: its commit; None for a folder.
        prefixes: the prefilled images, used and updated with ``request.keep_prefix`` alone; its bound holds also for
            the windows of second looks that several phrases share, which are kept apart otherwise.

    Returns:
        One result per phrase.

    Raises:
        Cancelled: ``request.should_stop`` returned True.
    """
    clock = StageClock(request.start, request.should_stop, request.on_stage)
    answers = _first_look(lvlm, scorer, throughput, request, config, clock, prefixes if request.keep_prefix else None)
    if request.second_look:
        clock.begin(SECOND_LOOK)
        answers = _second_looks(lvlm, scorer, throughput, request, config, answers, clock.worked_ms, prefixes)
    timing = clock.end()
    throughput.note_after(timing["attention"] + timing["selection"])
    results = (
        GroundingResult(
            phrase=phrase,
            image_size=request.image_size,
            detections=answer.decision.detections,
            candidates=answer.decision.candidates,
            responses=answer.seen.responses,
            selector=scorer.selector.name,
            score_kind=scorer.kind_of(answer.window is not None),
            model=model_name,
            revision=revision,
            seed=answer.seed,
            reason=answer.decision.reason,
            timing_ms=timing,
            skipped=answer.skipped,
            attention=answer.attention,
            window=answer.window,
            input_size=answer.input_size,
            image_tokens=answer.image_tokens,
            image=request.kept_image,
        )
        for phrase, answer in zip(request.phrases, answers, strict=True)
    )
    if request.region is None:
        return tuple(results)
    return tuple(_in_whole_image(result, request.region, request.whole_size) for result in results)


def _in_whole_image(result: GroundingResult, region: Box, size: tuple[int, int]) -> GroundingResult:
    """A result about ``region`` of an image of ``size`` (width, height), with its boxes in pixels of that image."""

    def moved(box: Box) -> Box:
        return Box(box.x1 + region.x1, box.y1 + region.y1, box.x2 + region.x1, box.y2 + region.y1)

    return replace(
        result,
        image_size=size,
        detections=tuple(replace(d, box=moved(d.box)) for d in result.detections),
        candidates=tuple(replace(c, box=moved(c.box)) for c in result.candidates),
        window=None if result.window is None else moved(result.window),
        region=region,
    )


@dataclass(frozen=True)
class _PhraseState:
    """State of one phrase between the looks. It holds no keys and queries, which would fill the device's memory during
    a second look."""

    seen: CandidateSet
    decision: Decision
    seed: int
    input_size: tuple[int, int] | None
    image_tokens: int
    skipped: tuple[str, ...]
    attention: np.ndarray | None = None
    window: Box | None = None


def _first_look(
    lvlm: LVLM,
    scorer: Scorer,
    throughput: ThroughputEstimate,
    request: GroundingRequest,
    config: SamplingConfig,
    clock: StageClock,
    prefixes: PrefixCache | None,
) -> list[_PhraseState]:
    selector = scorer.selector
    clock.begin("prompt")
    prompts = _prompts(lvlm, request.image, request.phrases, prefixes)
    clock.begin("reading")
    state = _read(lvlm, request.image, prompts, request, config, prefixes)
    clock.begin("sampling")
    drawn = _answer(lvlm, scorer, state, config, request, throughput)
    clock.begin("attention")
    seen = _seen(lvlm, prompts, drawn, scorer.needs, config.max_new_tokens)
    clock.begin("selection")
    choices = [_choose(scorer, request, phrase, s) for phrase, s in zip(request.phrases, seen, strict=True)]
    looks: list[np.ndarray | None] = [None] * len(prompts)
    if request.with_attention:
        looks = [
            attention_of(lvlm, selector, prompt, a.samples, decision)
            for prompt, a, decision in zip(prompts, drawn, choices, strict=True)
        ]
    return [
        _PhraseState(s, decision, a.samples.seed, prompt.input_size, prompt.image_tokens, a.skipped, look)
        for prompt, s, decision, a, look in zip(prompts, seen, choices, drawn, looks, strict=True)
    ]


def _seen(
    lvlm: LVLM,
    prompts: Sequence[Prompt],
    drawn: Sequence[ScheduledGenerations],
    needs: AttentionNeeds,
    max_new_tokens: int,
) -> list[CandidateSet]:
    """Return the candidates of each phrase with their attention, of which DEVICE_BYTES at most stay on the device."""
    seen: list[CandidateSet] = []
    used = 0
    for prompt, answers in zip(prompts, drawn, strict=True):
        record = capture(lvlm, prompt, answers.samples, answers.candidates, needs)
        size = record.device_bytes
        if used + size > DEVICE_BYTES:
            record = record.on_host()
        else:
            used += size
        record = record.of_responses(answers.counted(max_new_tokens))
        seen.append(CandidateSet(answers.candidates, answers.responses, record))
    return seen


def _second_looks(
    lvlm: LVLM,
    scorer: Scorer,
    throughput: ThroughputEstimate,
    request: GroundingRequest,
    config: SamplingConfig,
    answers: Sequence[_PhraseState],
    expected_ms: float,
    prefixes: PrefixCache,
) -> list[_PhraseState]:
    """Return ``answers`` with the candidates of a second look at each, one after the other.

    A window that several phrases share is read once. With ``request.keep_prefix`` every window stays in ``prefixes``
    after the call; otherwise none does, and the shared ones take no place in it during the call.
    ``expected_ms``: longest expected time of one look.
    """
    look = request.second_look or SecondLook()
    windows = [scorer.second_window(a.decision, request.image_size, look, request.multiple) for a in answers]
    uses = Counter(window.box for window, _ in windows if window)
    found = []
    deadline = Deadline(request.deadline_ms, request.start)
    for_windows = prefixes if request.keep_prefix else PrefixCache(prefixes.max_bytes)
    for phrase, answer, (window, why) in zip(request.phrases, answers, windows, strict=True):
        if window and deadline.left_ms() < expected_ms:
            window, why = None, f"no second look: {deadline_text(deadline.ms)}"
        second = None
        began = time.perf_counter()
        if window:
            try:
                again = _second_config(look, config, answer.seed)
                kept = for_windows if request.keep_prefix or uses[window.box] > 1 else None
                second = _look_again(lvlm, scorer, throughput, request, again, phrase, window, kept)
                if request.keep_prefix:
                    prefixes.touch(request.image)  # the next windows take the place of older ones before that of it
            except torch.OutOfMemoryError:
                prefixes.clear()
                for_windows.clear()
                why = f"no second look: {memory_text(lvlm.device)}"
            if second is not None and _says_nothing(second[0]):
                second, why = None, f"no second look: it was cut off before a box, {deadline_text(deadline.ms)}"
        if window is None or second is None:
            found.append(replace(answer, skipped=(*answer.skipped, why)))
            continue
        expected_ms = (time.perf_counter() - began) * 1e3
        seen = answer.seen.with_second(second[0], window)
        found.append(
            replace(
                answer,
                seen=seen,
                decision=_choose(scorer, request, phrase, seen, looked_again=True),
                skipped=(*answer.skipped, *(f"second look: {said}" for said in second[1])),
                window=window.box,
            )
        )
    return found


def _says_nothing(look: CandidateSet) -> bool:
    """Whether the deadline cut off all responses of ``look`` before their first box."""
    return look.num_responses == 0 and not any(response.problem == BROKEN for response in look.responses)


def _prompts(lvlm: LVLM, image: np.ndarray, phrases: Sequence[str], prefixes: PrefixCache | None) -> tuple[Prompt, ...]:
    return prefixes.prepare(lvlm, image, phrases) if prefixes is not None else lvlm.prepare_many(image, phrases)


def _read(
    lvlm: LVLM,
    image: np.ndarray,
    prompts: Sequence[Prompt],
    request: GroundingRequest,
    config: SamplingConfig,
    prefixes: PrefixCache | None,
) -> PrefillState:
    drafts = drafts_of(lvlm) if config.speculation else None
    if prefixes is None:
        return prefill(lvlm, prompts, request.should_stop, drafts)
    return prefixes.prefill(lvlm, image, prompts, request.should_stop, drafts)


def _second_config(look: SecondLook, config: SamplingConfig, seed: int) -> SamplingConfig:
    samples, seed = second_draw(look, config.num_samples, seed)
    return replace(config, num_samples=samples, seed=seed)


def _look_again(
    lvlm: LVLM,
    scorer: Scorer,
    throughput: ThroughputEstimate,
    request: GroundingRequest,
    config: SamplingConfig,
    phrase: str,
    window: Window,
    prefixes: PrefixCache | None,
) -> tuple[CandidateSet, tuple[str, ...]]:
    """The candidates of a look at ``window``, in coordinates of the window, and sentences on what was left out."""
    image = window.enlarged(request.image)
    (prompt,) = _prompts(lvlm, image, [phrase], prefixes)
    state = _read(lvlm, image, [prompt], request, config, prefixes)
    (drawn,) = _answer(lvlm, scorer, state, config, request, throughput)
    record = capture(lvlm, prompt, drawn.samples, drawn.candidates, scorer.needs)
    record = record.of_responses(drawn.counted(config.max_new_tokens))
    return CandidateSet(drawn.candidates, drawn.responses, record), drawn.skipped


def _choose(
    scorer: Scorer, request: GroundingRequest, phrase: str, seen: CandidateSet, looked_again: bool = False
) -> Decision:
    return scorer.decide(
        seen.candidates,
        seen.responses,
        seen.record,
        request.image_size,
        multiple=request.multiple,
        min_score=request.second_min_score if looked_again else request.min_score,
        min_votes=request.min_votes,
        looked_again=looked_again,
        mislabelled=mislabelled_as(seen.candidates, phrase) if request.check_labels else (),
    )


def _answer(
    lvlm: LVLM,
    scorer: Scorer,
    state: PrefillState,
    config: SamplingConfig,
    request: GroundingRequest,
    throughput: ThroughputEstimate,
) -> tuple[ScheduledGenerations, ...]:
    deadline = Deadline(request.deadline_ms, request.start, throughput.after_ms)
    selector, statistics = scorer.selector, scorer.needs.token_statistics
    whole = request.multiple or request.whole_responses or not selector.needs.end_with_first_box
    names_other = names_something_else if request.check_labels else None
    is_complete = None if whole else FirstBoxComplete(lvlm, names_other)
    if selector.greedy_decoding:
        return greedy_on_schedule(lvlm, state, config, deadline, request.should_stop, statistics, is_complete)
    seed = fresh_seed() if config.seed is None else config.seed
    seeds = [seed] * len(state.prompts)
    return sample_on_schedule(
        lvlm,
        state,
        config,
        seeds,
        deadline=deadline,
        throughput=throughput,
        should_stop=request.should_stop,
        token_statistics=statistics,
        is_complete=is_complete,
    )


def attention_of(
    lvlm: LVLM, selector: Selector, prompt: Prompt, samples: Generations, decision: Decision
) -> np.ndarray | None:
    """Return the mean attention map of the best detection, (Hv, Wv); of the best candidate if there is no detection.

    The mean is over the coordinates and the heads that the selector reads (all heads if it names none).

    Returns:
        The map; None without candidates.
    """
    shown = decision.foremost
    if shown is None:
        return None
    needs = AttentionNeeds(maps=True, step=selector.needs.step)
    return _mean_map(capture(lvlm, prompt, samples, [shown], needs), selector.needs.heads)


def _mean_map(record: AttentionRecord, heads: Sequence[Sequence[tuple[int, int]]] | None) -> np.ndarray | None:
    if record.maps is None:
        return None
    (maps,) = record.maps  # (4, L, K, Hv, Wv)
    if heads is None:
        return np.asarray(maps.mean(axis=(0, 1, 2)))
    return np.mean([maps[c, layer, head] for c, pairs in enumerate(heads) for layer, head in pairs], axis=0)
