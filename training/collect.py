"""Samples an LVLM's answers about image-category pairs and keeps every valid box with its attention and its IoU
(paper appendix A: N = 10 responses at tau = 1.0 for each pair)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from acs_core.attention import AttentionNeeds, Evidence, Step, capture
from acs_core.candidates import find_candidates
from acs_core.errors import ImageError, PhraseError
from acs_core.geometry import best_iou
from acs_core.identity import ModelIdentity, weights_fingerprint
from acs_core.lvlm.base import LVLM
from acs_core.lvlm.prompt import PROMPT
from acs_core.reading import Reading, read
from acs_core.sampling import Samples, answer_each
from acs_core.types import Candidate, Response, SamplingConfig
from training.errors import DataError
from training.pairs import Pair
from training.quantise import encode
from training.store import Part, open_store, part_folder, read_skipped, sole_writer, write_part

PAIRS_PER_PART = 10  # what a killed run has to do again, at most
# Models whose map has the shape of the picture: the regressor wants one size for all (appendix A.3).
MAP_SIZES = {"qwen2_5_vl": (24, 24)}
FIRST_FAILURES = 20  # pictures in a row that may fail before the folder is doubted
VERSIONS = ("acs_ros", "torch", "transformers", "numpy", "zarr")


@dataclass(frozen=True)
class CollectConfig:
    """``map_size`` (h, w): the maps' size in the store, the regressor's input (None: the family's in
    ``MAP_SIZES``, else the model's own grid).
    ``greedy`` collects the one greedy answer instead of samples, as the baseline of an evaluation. ``step``: whether
    the attention is that of the position which emits a coordinate's first token or of the one which reads it."""

    samples: int = 10
    temperature: float = 1.0
    top_p: float = 0.9
    top_k: int = 100
    max_new_tokens: int = 256
    seed: int = 0
    map_size: tuple[int, int] | None = None
    greedy: bool = False
    step: Step = "emitting"


@dataclass(frozen=True)
class CollectReport:
    """What a run did: pairs collected now, pairs found done from before, and what is skipped in the whole collection,
    with the reason."""

    collected: int
    resumed: int
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """All that a part depends on besides the model: pair i is sampled with a seed of its own, so that it does not
    matter who collects it, and when."""

    pairs: tuple[Pair, ...]
    config: CollectConfig

    @property
    def parts(self) -> int:
        """How many parts the collection has."""
        return math.ceil(len(self.pairs) / PAIRS_PER_PART)

    def pairs_of(self, number: int) -> range:
        """Indices of the pairs in part ``number``."""
        return range(number * PAIRS_PER_PART, min(len(self.pairs), (number + 1) * PAIRS_PER_PART))

    def missing(self, folder: Path) -> list[int]:
        """The parts that are not in ``folder`` yet."""
        return [n for n in range(self.parts) if not part_folder(folder, n).exists()]


PartRunner = Callable[[Job, Sequence[int], Callable[[int, Part], None]], None]


def collect(
    lvlm: LVLM,
    pairs: Sequence[Pair],
    out: Path,
    config: CollectConfig | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    weights: str | None = None,
    data: str = "",
    run: PartRunner | None = None,
) -> CollectReport:
    """Collects all of ``pairs`` into the store ``out``; parts that are there already are not made again.

    ``weights`` is the model's fingerprint where the caller has it: computing it reads all weights from disk. ``data``
    names the annotation file. ``run`` collects parts elsewhere (:mod:`training.collect_ray`) instead of here.

    Raises:
        DataError: ``out`` holds a collection of other pairs, of another model or with other settings; the first twenty
            pictures could not be read; or the disk is full. Finished parts are kept.
    """
    job = Job(tuple(pairs), with_map_size(config or CollectConfig(), lvlm))
    with sole_writer(out):
        open_store(out, describe(lvlm, job, weights_fingerprint(lvlm) if weights is None else weights, data))
        todo = job.missing(out)
        resumed = len(pairs) - sum(len(job.pairs_of(n)) for n in todo)
        done = resumed
        progress(done, len(pairs))
        if run is None:
            watch = _Watch(done, len(pairs), progress)
            for number in todo:
                write_part(out, number, make_part(lvlm, job, number, watch.step))
        else:

            def take(number: int, part: Part) -> None:
                nonlocal done
                write_part(out, number, part)
                done += len(job.pairs_of(number))
                progress(done, len(pairs))

            run(job, todo, take)
        skipped = _skipped(out, pairs)
    now = sum(1 for n in todo for i in job.pairs_of(n) if i not in skipped)
    return CollectReport(now, resumed, tuple(f"{pairs[i].key}: {why}" for i, why in sorted(skipped.items())))


def collect_together(
    lvlm: LVLM,
    jobs: Mapping[Path, Job],
    progress: Callable[[int, int], None] = lambda done, total: None,
    weights: str | None = None,
    data: str = "",
) -> None:
    """Collects several jobs about the same pairs, each into its own store: each picture is read once for all of them.
    Parts that are there already are not made again. ``weights`` and ``data`` as for :func:`collect`.

    Raises:
        ValueError: the jobs are not about the same pairs.
        DataError: as in :func:`collect`.
    """
    pairs = next(iter(jobs.values())).pairs
    if any(job.pairs != pairs for job in jobs.values()):
        raise ValueError("only jobs about the same pairs can be collected together")
    known = weights_fingerprint(lvlm) if weights is None else weights
    jobs = {out: replace(job, config=with_map_size(job.config, lvlm)) for out, job in jobs.items()}
    with ExitStack() as writers:
        for out, job in jobs.items():
            writers.enter_context(sole_writer(out))
            open_store(out, describe(lvlm, job, known, data))
        todo = {out: set(job.missing(out)) for out, job in jobs.items()}
        numbers = sorted(set().union(*todo.values()))
        whole = next(iter(jobs.values()))
        done = len(pairs) - sum(len(whole.pairs_of(n)) for n in numbers)
        progress(done, len(pairs))
        watch = _Watch(done, len(pairs), progress)
        for number in numbers:
            wanted = {out: job for out, job in jobs.items() if number in todo[out]}
            for out, part in zip(wanted, make_parts(lvlm, [*wanted.values()], number, watch.step), strict=True):
                write_part(out, number, part)
        for out in jobs:
            _skipped(out, pairs)


class _Watch:
    """Counts pairs, and ends a run in which none of the first pictures could be used."""

    def __init__(self, done: int, total: int, progress: Callable[[int, int], None]) -> None:
        self._done, self._total, self._progress = done, total, progress
        self._failed: list[str] = []

    def step(self, problem: str) -> None:
        """One more pair; ``problem`` says what was wrong, "" if nothing was."""
        self._done += 1
        self._failed += [problem] if problem else []
        if len(self._failed) == FIRST_FAILURES == self._done:
            raise DataError(
                f"none of the first {FIRST_FAILURES} pictures could be used: is the picture folder the right one? "
                f"The first: {self._failed[0]}"
            )
        self._progress(self._done, self._total)


def _skipped(out: Path, pairs: Sequence[Pair]) -> dict[int, str]:
    """Why pairs of a finished collection were not asked, by their numbers. Raises DataError where none was asked."""
    skipped = read_skipped(out)
    if len(skipped) == len(pairs):
        raise DataError(f"none of the {len(pairs)} pairs could be used; the first: {next(iter(skipped.values()))}")
    return skipped


def describe(lvlm: LVLM, job: Job, weights: str, data: str) -> dict[str, Any]:
    """The manifest: everything that a second run must share with the first, and the versions of what made it."""
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(job.config).items()}
    if job.config.step == "emitting":  # so that collections of before there was a choice can be gone on with
        del settings["step"]
    return {
        "model": {**ModelIdentity.of(lvlm).to_dict(), "weights": weights},
        "dtype": str(lvlm.hf_model.dtype).removeprefix("torch."),
        "prompt": PROMPT,
        "data": data,
        **settings,
        "pairs": [p.key for p in job.pairs],
        "kinds": [p.kind for p in job.pairs],
        **({"windows": [_corners(p) for p in job.pairs]} if any(p.window for p in job.pairs) else {}),
        "truth": [[t.as_tuple() for t in p.truth] for p in job.pairs],
        "versions": dict(_versions()),
    }


def config_of(manifest: Mapping[str, Any]) -> CollectConfig:
    """The settings that :func:`describe` wrote down."""
    kept = {f.name: manifest[f.name] for f in fields(CollectConfig) if f.name in manifest}
    size = kept.get("map_size")
    return CollectConfig(**kept | {"map_size": tuple(size) if size else None})


def _corners(pair: Pair) -> list[float] | None:
    return None if pair.window is None else [round(v, 3) for v in pair.window.box.as_tuple()]


def _versions() -> Iterator[tuple[str, str]]:
    for name in VERSIONS:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, "unknown"


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
            drawn[settings] = _draw(lvlm, [reading for _, reading in asked.values()], settings, [*asked])
        stacks: list[_Distinct] = []
        rows: list[np.ndarray] = []
        answers: list[dict[str, Any]] = []
        for (i, (image, _)), samples in zip(asked.items(), drawn[settings], strict=True):
            candidates, responses, evidence = _look(lvlm, samples, job.config)
            if candidates:
                stacks.append(_distinct(candidates, evidence, samples, job.config.step))
                rows.append(_rows(i, job.pairs[i], candidates, evidence, (image.shape[1], image.shape[0])))
            answers += _answers(i, responses, samples)
        parts.append(Part(*_joined(stacks), _stacked(rows), tuple(asked), skipped, tuple(answers)))
    for _ in asked:
        step("")
    return parts


def with_map_size(config: CollectConfig, lvlm: LVLM) -> CollectConfig:
    """``config`` with the map size that the model's family wants, where none is set."""
    return config if config.map_size else replace(config, map_size=MAP_SIZES.get(lvlm.family))


def ask(
    lvlm: LVLM, image: np.ndarray, phrase: str, config: CollectConfig, seed: int
) -> tuple[tuple[Candidate, ...], tuple[Response, ...], Evidence, Samples]:
    """One question: candidates, responses, all attention of the candidates, and the samples behind them."""
    (samples,) = _draw(lvlm, [read(lvlm, [lvlm.prepare(image, phrase)])], config, [seed - config.seed])
    return (*_look(lvlm, samples, config), samples)


def _draw(
    lvlm: LVLM, readings: Sequence[Reading], config: CollectConfig, numbers: Sequence[int]
) -> tuple[Samples, ...]:
    """The responses to the pairs of these numbers."""
    if not readings:
        return ()
    sampling = SamplingConfig(config.samples, config.temperature, config.top_p, config.top_k, config.max_new_tokens)
    seeds = [config.seed + i for i in numbers]
    return answer_each(lvlm, readings, None if config.greedy else sampling, seeds, config.max_new_tokens, True)


def _look(
    lvlm: LVLM, samples: Samples, config: CollectConfig
) -> tuple[tuple[Candidate, ...], tuple[Response, ...], Evidence]:
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
