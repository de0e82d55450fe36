"""One part of a collection: an LVLM's answers about ten pairs, and every valid box in them with its attention and its
IoU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from acs_core.attention import AttentionNeeds, Evidence, Step, capture
from acs_core.candidates import find_candidates
from acs_core.errors import ImageError, PhraseError
from acs_core.geometry import best_iou
from acs_core.lvlm.base import LVLM
from acs_core.reading import Reading, read
from acs_core.sampling import Samples, answer_each
from acs_core.types import Candidate, Response, SamplingConfig
from training.collect_job import CollectConfig, Job
from training.errors import DataError
from training.pairs import Pair
from training.quantise import encode
from training.store import Part


def make_part(lvlm: LVLM, job: Job, number: int, step: Callable[[str], None] = lambda problem: None) -> Part:
    """Asks about the pairs of part ``number``. ``step`` is called after each with what was wrong, "" if nothing was."""
    return make_parts(lvlm, [job], number, step)[0]


def make_parts(
    lvlm: LVLM, jobs: Sequence[Job], number: int, step: Callable[[str], None] = lambda problem: None
) -> list[Part]:
    """Part ``number`` of each of ``jobs``, which ask about the same pairs: each picture is read once for all of them,
    and responses that differ in nothing but the ``step`` whose attention is kept are drawn once."""
    asked: dict[int, tuple[np.ndarray, Reading]] = {}
    skipped: dict[int, str] = {}
    for i in jobs[0].pairs_of(number):
        pair = jobs[0].pairs[i]
        try:
            image = pair.read()
            asked[i] = image, read(lvlm, [lvlm.prepare(image, pair.category)])
        except (DataError, ImageError, PhraseError) as error:
            skipped[i] = str(error)
            step(str(error))
    drawn: dict[CollectConfig, tuple[Samples, ...]] = {}
    parts = []
    for job in jobs:
        settings = replace(job.config, step="emitting", map_size=None)
        if settings not in drawn:
            drawn[settings] = draw(lvlm, [reading for _, reading in asked.values()], settings, [*asked])
        stacks: list[_Distinct] = []
        rows: list[np.ndarray] = []
        answers: list[dict[str, Any]] = []
        for (i, (image, _)), samples in zip(asked.items(), drawn[settings], strict=True):
            candidates, responses, evidence = look(lvlm, samples, job.config)
            if candidates:
                stacks.append(_distinct(candidates, evidence, samples, job.config.step))
                rows.append(_rows(i, job.pairs[i], candidates, evidence, (image.shape[1], image.shape[0])))
            answers += _answers(i, responses, samples)
        parts.append(Part(*_joined(stacks), _stacked(rows), tuple(asked), skipped, tuple(answers)))
    for _ in asked:
        step("")
    return parts


def draw(lvlm: LVLM, readings: Sequence[Reading], config: CollectConfig, numbers: Sequence[int]) -> tuple[Samples, ...]:
    """The responses to the pairs of these numbers, which ``readings`` have read: each has a seed of its own."""
    if not readings:
        return ()
    sampling = SamplingConfig(config.samples, config.temperature, config.top_p, config.top_k, config.max_new_tokens)
    seeds = [config.seed + i for i in numbers]
    return answer_each(lvlm, readings, None if config.greedy else sampling, seeds, config.max_new_tokens, True)


def look(
    lvlm: LVLM, samples: Samples, config: CollectConfig
) -> tuple[tuple[Candidate, ...], tuple[Response, ...], Evidence]:
    """Candidates and responses among ``samples`` of one pair, and all attention of the candidates."""
    (prompt,) = samples.reading.prompts
    candidates, responses = find_candidates(lvlm, prompt, samples)
    needs = AttentionNeeds(heads=None, maps=True, map_size=config.map_size, all_entropies=True, step=config.step)
    return candidates, responses, capture(lvlm, prompt, samples, candidates, needs)


_Distinct = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # codes, unit, place, entropy


def _distinct(candidates: Sequence[Candidate], evidence: Evidence, samples: Samples, step: Step) -> _Distinct:
    """The maps of one pair, each once. Responses that begin alike look alike: a map follows from the tokens seen."""
    more = 1 if step == "consuming" else 0  # what reads a token has seen it
    if evidence.maps is None:
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
    codes, unit = encode(evidence.maps[owner, coordinate])
    return codes, unit, place, evidence.entropy.astype(np.float32)


def _rows(i: int, pair: Pair, candidates: Sequence[Candidate], evidence: Evidence, size: tuple[int, int]) -> np.ndarray:
    """(C, 17) of the store's ``COLUMNS`` and ``TOKENS``."""
    rows = []
    for c in candidates:
        found = (best_iou(c.box, pair.truth), *c.box.as_tuple(), i, pair.image_id, c.response, c.order)
        rows.append((*found, *size, *evidence.grid, *c.coordinate_tokens))
    return np.array(rows, np.float64)


def _answers(i: int, responses: Sequence[Response], samples: Samples) -> Iterator[dict[str, Any]]:
    entropies: Iterable[Sequence[float]] = samples.token_entropy or ((),) * len(responses)
    for r, (response, entropy) in enumerate(zip(responses, entropies, strict=True)):
        yield {"pair": i, "response": r, **asdict(response), "token_entropy": [round(float(e), 4) for e in entropy]}


def _joined(stacks: Sequence[_Distinct]) -> _Distinct:
    if not stacks:
        return (
            np.zeros((0, 1, 1, 1, 1), np.uint8),
            np.zeros((0, 1, 1), np.float32),
            np.zeros((0, 4), np.int32),
            np.zeros((0, 4, 1, 1), np.float32),
        )
    start = np.cumsum([0, *(len(s[0]) for s in stacks)])
    codes, unit, entropy = (np.concatenate([s[k] for s in stacks]) for k in (0, 1, 3))
    return codes, unit, np.concatenate([s[2] + at for s, at in zip(stacks, start, strict=False)]), entropy


def _stacked(rows: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(rows) if rows else np.zeros((0, 17))
