"""Samples an LVLM's answers about image-category pairs and keeps every valid box with its attention and its IoU
(paper appendix A: N = 10 responses at tau = 1.0 for each pair)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from acs_core.attention import Evidence
from acs_core.identity import weights_fingerprint
from acs_core.lvlm.base import LVLM
from acs_core.reading import read
from acs_core.sampling import Samples
from acs_core.types import Candidate, Response
from training.collect_job import CollectConfig, Job, describe, with_map_size
from training.collect_part import draw, look, make_part, make_parts
from training.errors import DataError
from training.pairs import Pair
from training.store import Part, open_store, read_skipped, sole_writer, write_part

FIRST_FAILURES = 20  # pictures in a row that may fail before the folder is doubted


@dataclass(frozen=True)
class CollectReport:
    """What a run did: pairs collected now, pairs found done from before, and what is skipped in the whole collection,
    with the reason."""

    collected: int
    resumed: int
    skipped: tuple[str, ...]


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


def ask(
    lvlm: LVLM, image: np.ndarray, phrase: str, config: CollectConfig, seed: int
) -> tuple[tuple[Candidate, ...], tuple[Response, ...], Evidence, Samples]:
    """One question: candidates, responses, all attention of the candidates, and the samples behind them."""
    (samples,) = draw(lvlm, [read(lvlm, [lvlm.prepare(image, phrase)])], config, [seed - config.seed])
    return (*look(lvlm, samples, config), samples)
