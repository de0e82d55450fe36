"""Collection of candidates: sample an LVLM's responses about image-category pairs and store every valid box with its
attention and its IoU (paper appendix A: N = 10 responses at tau = 1.0 per pair), in this process or on a Ray
cluster."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from acs_core.artifacts.identity import weights_fingerprint
from acs_core.attention import AttentionRecord
from acs_core.generation.generate import Generations
from acs_core.generation.prefill import prefill
from acs_core.lvlm.base import LVLM
from acs_core.output_folder import OutputFolder
from acs_core.types import Candidate, Response
from training.collection.job import CollectConfig, Job, describe, with_map_size
from training.collection.part import draw, look, make_part, make_parts
from training.collection.part_writer import PartWriter
from training.collection.ray_pool import RayConfig, run_on_ray
from training.collection.store import CollectionPart, holds_store, open_store, part_folder, read_skipped, write_part
from training.data.pairs import Pair
from training.errors import DataError

FIRST_FAILURES = 20  # number of failing images at the start that stops a run: the folder is probably wrong


@dataclass(frozen=True)
class CollectReport:
    """Result of :func:`collect`.

    Attributes:
        collected: number of pairs collected by this run.
        resumed: number of pairs that the store held before.
        skipped: "KEY: reason" for each skipped pair of the whole collection.
    """

    collected: int
    resumed: int
    skipped: tuple[str, ...]


PartRunner = Callable[[Job, Sequence[int], Callable[[int, CollectionPart], None]], None]


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
    """Collect all of ``pairs`` into the store ``out``. Parts that the store already holds are kept.

    Args:
        lvlm: the model to sample.
        pairs: image-category pairs.
        out: folder of the store.
        config: settings of the collection.
        progress: called with (pairs done, number of pairs).
        weights: fingerprint of the model's weights; None to compute it, which reads all weights from disk.
        data: name of the annotation file, for the manifest.
        run: runner that makes the parts elsewhere (:func:`ray_runner`); None to make them in this process.

    Raises:
        DataError: ``out`` holds a collection of other pairs, of another model or with other settings; the first twenty
            images could not be read; or the disk is full. Finished parts are kept.
        OutputError: ``out`` holds files that acs did not write, or another process collects into it.
    """
    job = Job(tuple(pairs), with_map_size(config or CollectConfig(), lvlm))
    with store_folder(out, pairs):
        open_store(out, describe(lvlm, job, weights_fingerprint(lvlm) if weights is None else weights, data))
        todo = job.missing(out)
        resumed = len(pairs) - sum(len(job.pairs_of(n)) for n in todo)
        done = resumed
        progress(done, len(pairs))
        if run is None:
            watch = _Watch(done, len(pairs), progress)
            written: list[Path] = []
            with _forgotten_if_none_could_be_read(watch, written), PartWriter() as writer:
                for number in todo:
                    (draft,) = make_parts(lvlm, [job], number, watch.step, writer.quantise)
                    written.append(part_folder(out, number))
                    writer.write(out, number, draft)
        else:

            def take(number: int, part: CollectionPart) -> None:
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
    """Collect several jobs over the same pairs, each into its own store, reading each image once.

    Args:
        lvlm: the model to sample.
        jobs: the job of each store's folder. Parts that a store already holds are kept.
        progress: called with (pairs done, number of pairs).
        weights: as in :func:`collect`.
        data: as in :func:`collect`.

    Raises:
        ValueError: the jobs have different pairs.
        DataError: as in :func:`collect`.
    """
    pairs = next(iter(jobs.values())).pairs
    if any(job.pairs != pairs for job in jobs.values()):
        raise ValueError("only jobs about the same pairs can be collected together")
    known = weights_fingerprint(lvlm) if weights is None else weights
    jobs = {out: replace(job, config=with_map_size(job.config, lvlm)) for out, job in jobs.items()}
    with ExitStack() as writers:
        for out, job in jobs.items():
            writers.enter_context(store_folder(out, pairs))
            open_store(out, describe(lvlm, job, known, data))
        todo = {out: set(job.missing(out)) for out, job in jobs.items()}
        numbers = sorted(set().union(*todo.values()))
        whole = next(iter(jobs.values()))
        done = len(pairs) - sum(len(whole.pairs_of(n)) for n in numbers)
        progress(done, len(pairs))
        watch = _Watch(done, len(pairs), progress)
        written: list[Path] = []
        with _forgotten_if_none_could_be_read(watch, written), PartWriter() as writer:
            for number in numbers:
                wanted = {out: job for out, job in jobs.items() if number in todo[out]}
                drafts = make_parts(lvlm, [*wanted.values()], number, watch.step, writer.quantise)
                for out, draft in zip(wanted, drafts, strict=True):
                    written.append(part_folder(out, number))
                    writer.write(out, number, draft)
        for out in jobs:
            _skipped(out, pairs)


def store_folder(out: Path, pairs: Sequence[Pair]) -> OutputFolder:
    """Return the output folder of a store of ``pairs``, which locks it while this process collects."""
    return OutputFolder(out, "acs-train collect", inputs={pair.file.parent for pair in pairs}, adopts=holds_store)


def ray_runner(load: Callable[[], LVLM], config: RayConfig) -> PartRunner:
    """Return a runner for the argument ``run`` of :func:`collect` that makes parts on a Ray cluster.

    Each actor holds one model, by default on one GPU. The actors send parts to this process, which writes them: they
    need the images and the model at the same paths, but no shared store.

    Args:
        load: loads the model in an actor; it is pickled.
        config: address and resources of the cluster.
    """

    def run(job: Job, todo: Sequence[int], take: Callable[[int, CollectionPart], None]) -> None:
        run_on_ray(_CollectorFactory(load, job), todo, take, config)

    return run


@dataclass(frozen=True)
class _CollectorFactory:
    """Factory of an actor's collector, which loads the model once per actor."""

    load: Callable[[], LVLM]
    job: Job

    def __call__(self) -> Callable[[int], CollectionPart]:
        lvlm = self.load()
        return lambda number: make_part(lvlm, self.job, number)


@contextmanager
def _forgotten_if_none_could_be_read(watch: _Watch, written: Sequence[Path]) -> Iterator[None]:
    """Remove the parts in ``written`` if the block ends because none of the first images could be used.

    These parts record their pairs as skipped, and would still do so after the image folder is corrected.
    """
    try:
        yield
    except DataError:
        if watch.none_could_be_used:
            for part in written:
                shutil.rmtree(part, ignore_errors=True)  # one may not have been written
        raise


class _Watch:
    """Counter of finished pairs, which stops a run if all of the first images fail."""

    def __init__(self, done: int, total: int, progress: Callable[[int, int], None]) -> None:
        self._done, self._total, self._progress = done, total, progress
        self._failed: list[str] = []

    @property
    def none_could_be_used(self) -> bool:
        """Whether the first pictures of the whole collection all failed."""
        return len(self._failed) == FIRST_FAILURES == self._done

    def step(self, problem: str) -> None:
        """Count one more pair; ``problem`` is the reason why it failed, "" if it did not."""
        self._done += 1
        self._failed += [problem] if problem else []
        if self.none_could_be_used:
            raise DataError(
                f"none of the first {FIRST_FAILURES} pictures could be used: is the picture folder the right one? "
                f"The first: {self._failed[0]}"
            )
        self._progress(self._done, self._total)


def _skipped(out: Path, pairs: Sequence[Pair]) -> dict[int, str]:
    """Return the reason for each skipped pair of a finished collection, by pair index. Raises DataError if all were
    skipped."""
    skipped = read_skipped(out)
    if len(skipped) == len(pairs):
        raise DataError(f"none of the {len(pairs)} pairs could be used; the first: {next(iter(skipped.values()))}")
    return skipped


def ask(
    lvlm: LVLM, image: np.ndarray, phrase: str, config: CollectConfig, seed: int
) -> tuple[tuple[Candidate, ...], tuple[Response, ...], AttentionRecord, Generations]:
    """Sample one pair. Returns candidates, responses, attention of all candidates, and the samples."""
    (samples,) = draw(lvlm, [prefill(lvlm, [lvlm.prepare(image, phrase)])], config, [seed - config.seed])
    return (*look(lvlm, samples, config), samples)
