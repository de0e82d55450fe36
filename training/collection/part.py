"""Parts of a collection: sample the pairs of a part, and keep every valid box with its attention and IoU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
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
from training.collection.part_reading import HIDDEN
from training.collection.store import CollectionPart
from training.data.pairs import Pair
from training.errors import DataError

Coded = tuple[np.ndarray, np.ndarray]  # codes and units of maps
# Quantises maps, perhaps beside what the caller does next: the result's call waits for it.
Quantise = Callable[[np.ndarray], Callable[[], Coded]]


@dataclass(frozen=True)
class DistinctMaps:
    """Distinct maps of one pair's C candidates.

    Attributes:
        coded: returns the codes and units of the M distinct maps.
        count: their number M.
        place: (C, 4) indices of the distinct map of each candidate's coordinates.
        entropy: (C, 4, L, K) float32 in nats.
    """

    coded: Callable[[], Coded]
    count: int
    place: np.ndarray
    entropy: np.ndarray


@dataclass(frozen=True)
class PartDraft:
    """Part whose maps may still be being quantised.

    Attributes:
        maps: distinct maps of each pair that has candidates.
        rows: table of the candidates of each of these pairs.
        pairs: indices of the sampled pairs.
        skipped: reason for each skipped pair, by pair index.
        answers: one JSON object per response.
    """

    maps: tuple[DistinctMaps, ...]
    rows: tuple[np.ndarray, ...]
    pairs: tuple[int, ...]
    skipped: dict[int, str]
    answers: tuple[dict[str, Any], ...]

    def finish(self) -> CollectionPart:
        """Wait until all maps are quantised, and return the part."""
        return CollectionPart(*_joined(self.maps), _stacked(self.rows), self.pairs, self.skipped, self.answers)


def quantise_now(maps: np.ndarray) -> Callable[[], Coded]:
    """Quantise ``maps`` before the caller goes on."""
    coded = encode(maps)
    return lambda: coded


def make_part(lvlm: LVLM, job: Job, number: int, step: Callable[[str], None] = lambda problem: None) -> CollectionPart:
    """Make part ``number`` of ``job``. ``step`` is called after each pair with the reason why it failed, or ""."""
    return make_parts(lvlm, [job], number, step)[0].finish()


def make_parts(
    lvlm: LVLM,
    jobs: Sequence[Job],
    number: int,
    step: Callable[[str], None] = lambda problem: None,
    quantise: Quantise = quantise_now,
) -> list[PartDraft]:
    """Make part ``number`` of each of ``jobs``, which have the same pairs.

    Each image is read once for all jobs and all successive pairs that ask about it; the model reads its tokens once,
    too. Jobs that differ only in the ``step`` whose attention is kept share their responses.

    Args:
        lvlm: the model.
        jobs: the jobs.
        number: number of the part.
        step: called after each pair with the reason why it failed, or "".
        quantise: quantises the maps of a pair.
    """
    asked: dict[int, tuple[np.ndarray, PrefillState]] = {}
    skipped: dict[int, str] = {}
    for together in _of_one_picture(jobs[0].pairs, jobs[0].pairs_of(number)):
        for i, found in _read(lvlm, jobs[0].pairs, together).items():
            if isinstance(found, str):
                skipped[i] = found
                step(found)
            else:
                asked[i] = found
    drawn: dict[CollectConfig, tuple[Generations, ...]] = {}
    parts = []
    for job in jobs:
        settings = replace(job.config, step="emitting", map_size=None)
        if settings not in drawn:
            drawn[settings] = draw(lvlm, [state for _, state in asked.values()], settings, [*asked])
        maps: list[DistinctMaps] = []
        rows: list[np.ndarray] = []
        answers: list[dict[str, Any]] = []
        for (i, (image, _)), samples in zip(asked.items(), drawn[settings], strict=True):
            candidates, responses, record = look(lvlm, samples, job.config)
            if candidates:
                maps.append(_distinct(candidates, record, samples, job.config.step, quantise))
                rows.append(_rows(i, job.pairs[i], candidates, record, (image.shape[1], image.shape[0])))
            answers += _answers(i, responses, samples)
        parts.append(PartDraft(tuple(maps), tuple(rows), tuple(asked), skipped, tuple(answers)))
    for _ in asked:
        step("")
    return parts


def _of_one_picture(pairs: Sequence[Pair], numbers: Sequence[int]) -> Iterator[list[int]]:
    """Yield the successive ``numbers`` whose pairs ask about the same picture."""
    for _, together in groupby(numbers, lambda i: (pairs[i].file, pairs[i].window, pairs[i].bits, pairs[i].size)):
        yield [*together]


def _read(
    lvlm: LVLM, pairs: Sequence[Pair], together: Sequence[int]
) -> dict[int, tuple[np.ndarray, PrefillState] | str]:
    """Return the image and the prefill of each of the pairs ``together``, which ask about one picture; or the reason
    why it cannot be used."""
    try:
        image = pairs[together[0]].read()
        prompts = lvlm.prepare_many(image, [pairs[i].category for i in together])
        states = prefill(lvlm, prompts).apart()
    except (DataError, ImageError, PhraseError) as error:
        if len(together) == 1:
            return {together[0]: str(error)}
        # A phrase of one pair does not concern the others.
        return {i: found for one in together for i, found in _read(lvlm, pairs, [one]).items()}
    return {i: (image, state) for i, state in zip(together, states, strict=True)}


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


def _distinct(
    candidates: Sequence[Candidate], record: AttentionRecord, samples: Generations, step: Step, quantise: Quantise
) -> DistinctMaps:
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
    coded = quantise(record.maps[owner, coordinate])
    return DistinctMaps(coded, len(first), place, record.entropy.astype(np.float32))


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
    hidden = [float(f"{v:.4g}") for v in samples.state.hidden[samples.prompt].float().tolist()]
    for r, (response, entropy, logprob) in enumerate(kept):
        tokens = {"token_entropy": [round(e, 4) for e in entropy], "token_logprob": [round(p, 4) for p in logprob]}
        once = {HIDDEN: hidden} if r == 0 else {}  # it is that of the prompt
        yield {"pair": i, "response": r, **asdict(response), **tokens, **once}


def _joined(found: Sequence[DistinctMaps]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return codes, units, places and entropies of all pairs."""
    if not found:
        return (
            np.zeros((0, 1, 1, 1, 1), np.uint8),
            np.zeros((0, 1, 1), np.float32),
            np.zeros((0, 4), np.int32),
            np.zeros((0, 4, 1, 1), np.float32),
        )
    start = np.cumsum([0, *(maps.count for maps in found)], dtype=np.int32)  # dtype of place
    codes, unit = (np.concatenate(arrays) for arrays in zip(*(maps.coded() for maps in found), strict=True))
    place = np.concatenate([maps.place + at for maps, at in zip(found, start, strict=False)])
    return codes, unit, place, np.concatenate([maps.entropy for maps in found])


def _stacked(rows: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(rows) if rows else np.zeros((0, 17))
