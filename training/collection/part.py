"""Parts of a collection: sample the pairs of a part, and keep every valid box with its attention and IoU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from acs_core.attention import AttentionNeeds, AttentionRecord, Step, capture
from acs_core.errors import ImageError, PhraseError
from acs_core.generation.candidates import find_candidates
from acs_core.generation.generate import Generations
from acs_core.generation.prefill import PrefillState, prefill
from acs_core.generation.sample import sample_each
from acs_core.geometry import best_iou
from acs_core.lvlm.base import LVLM
from acs_core.types import Candidate, Response, SamplingConfig
from training.collection.job import CollectConfig, Job
from training.collection.part_arrays import encode
from training.collection.store import CollectionPart
from training.data.pairs import Pair
from training.errors import DataError


def make_part(lvlm: LVLM, job: Job, number: int, step: Callable[[str], None] = lambda problem: None) -> CollectionPart:
    """Make part ``number`` of ``job``. ``step`` is called after each pair with the reason why it failed, or ""."""
    return make_parts(lvlm, [job], number, step)[0]


def make_parts(
    lvlm: LVLM, jobs: Sequence[Job], number: int, step: Callable[[str], None] = lambda problem: None
) -> list[CollectionPart]:
    """Make part ``number`` of each of ``jobs``, which have the same pairs.

    Each image is read once for all jobs. Jobs that differ only in the ``step`` whose attention is kept share their
    responses.
    """
    asked: dict[int, tuple[np.ndarray, PrefillState]] = {}
    skipped: dict[int, str] = {}
    for i in jobs[0].pairs_of(number):
        pair = jobs[0].pairs[i]
        try:
            image = pair.read()
            asked[i] = image, prefill(lvlm, [lvlm.prepare(image, pair.category)])
        except (DataError, ImageError, PhraseError) as error:
            skipped[i] = str(error)
            step(str(error))
    drawn: dict[CollectConfig, tuple[Generations, ...]] = {}
    parts = []
    for job in jobs:
        settings = replace(job.config, step="emitting", map_size=None)
        if settings not in drawn:
            drawn[settings] = draw(lvlm, [state for _, state in asked.values()], settings, [*asked])
        stacks: list[_Distinct] = []
        rows: list[np.ndarray] = []
        answers: list[dict[str, Any]] = []
        for (i, (image, _)), samples in zip(asked.items(), drawn[settings], strict=True):
            candidates, responses, record = look(lvlm, samples, job.config)
            if candidates:
                stacks.append(_distinct(candidates, record, samples, job.config.step))
                rows.append(_rows(i, job.pairs[i], candidates, record, (image.shape[1], image.shape[0])))
            answers += _answers(i, responses, samples)
        parts.append(CollectionPart(*_joined(stacks), _stacked(rows), tuple(asked), skipped, tuple(answers)))
    for _ in asked:
        step("")
    return parts


def draw(
    lvlm: LVLM, prefill_states: Sequence[PrefillState], config: CollectConfig, numbers: Sequence[int]
) -> tuple[Generations, ...]:
    """Sample the responses of the pairs ``numbers`` from their prefills; each pair has its own seed."""
    if not prefill_states:
        return ()
    sampling = SamplingConfig(config.samples, config.temperature, config.top_p, config.top_k, config.max_new_tokens)
    seeds = [config.seed + i for i in numbers]
    return sample_each(lvlm, prefill_states, None if config.greedy else sampling, seeds, config.max_new_tokens, True)


def look(
    lvlm: LVLM, samples: Generations, config: CollectConfig
) -> tuple[tuple[Candidate, ...], tuple[Response, ...], AttentionRecord]:
    """Return candidates and responses of one pair's ``samples``, and the attention of all candidates."""
    (prompt,) = samples.state.prompts
    candidates, responses = find_candidates(lvlm, prompt, samples)
    needs = AttentionNeeds(heads=None, maps=True, map_size=config.map_size, all_entropies=True, step=config.step)
    return candidates, responses, capture(lvlm, prompt, samples, candidates, needs)


_Distinct = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # codes, unit, place, entropy


def _distinct(candidates: Sequence[Candidate], record: AttentionRecord, samples: Generations, step: Step) -> _Distinct:
    """Return the distinct maps of one pair. Responses with the same beginning share maps, since a map depends only on
    the tokens before it."""
    more = 1 if step == "consuming" else 0  # the consuming position also depends on the token itself
    if record.maps is None:
        raise ValueError("attention capture gave no maps although they were asked for")
    numbers: dict[tuple[int, ...], int] = {}
    first: list[tuple[int, int]] = []
    place = np.zeros((len(candidates), 4), np.int32)
    for i, candidate in enumerate(candidates):
        for c, token in enumerate(candidate.coordinate_tokens):
            written = tuple(samples.response_ids[candidate.response][: token + more])
            if written not in numbers:
                numbers[written] = len(first)
                first.append((i, c))
            place[i, c] = numbers[written]
    owner, coordinate = np.array(first).T
    codes, unit = encode(record.maps[owner, coordinate])
    return codes, unit, place, record.entropy.astype(np.float32)


def _rows(
    i: int, pair: Pair, candidates: Sequence[Candidate], record: AttentionRecord, size: tuple[int, int]
) -> np.ndarray:
    """Return the table of candidates, (C, 17), with the columns of :data:`training.collection.part_reading.NAMES`."""
    rows = []
    for c in candidates:
        found = (best_iou(c.box, pair.truth), *c.box.as_tuple(), i, pair.image_id, c.response, c.order)
        rows.append((*found, *size, *record.grid, *c.coordinate_tokens))
    return np.array(rows, np.float64)


def _answers(i: int, responses: Sequence[Response], samples: Generations) -> Iterator[dict[str, Any]]:
    none: Sequence[Sequence[float]] = ((),) * len(responses)
    kept = zip(responses, samples.token_entropy or none, samples.token_logprob or none, strict=True)
    for r, (response, entropy, logprob) in enumerate(kept):
        tokens = {"token_entropy": [round(e, 4) for e in entropy], "token_logprob": [round(p, 4) for p in logprob]}
        yield {"pair": i, "response": r, **asdict(response), **tokens}


def _joined(stacks: Sequence[_Distinct]) -> _Distinct:
    if not stacks:
        return (
            np.zeros((0, 1, 1, 1, 1), np.uint8),
            np.zeros((0, 1, 1), np.float32),
            np.zeros((0, 4), np.int32),
            np.zeros((0, 4, 1, 1), np.float32),
        )
    start = np.cumsum([0, *(len(s[0]) for s in stacks)], dtype=np.int32)  # dtype of place
    codes, unit, entropy = (np.concatenate([s[k] for s in stacks]) for k in (0, 1, 3))
    return codes, unit, np.concatenate([s[2] + at for s, at in zip(stacks, start, strict=False)]), entropy


def _stacked(rows: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(rows) if rows else np.zeros((0, 17))
