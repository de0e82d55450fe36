"""End-to-end latency of answers for each selector, through :class:`acs_core.grounder.Grounder`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch

from acs_core.evaluation.records import Evaluation, Group, Run
from acs_core.grounder import Grounder
from acs_core.lvlm.base import LVLM
from acs_core.selection.scorer import Scorer
from acs_core.types import SamplingConfig
from training.data.pairs import Pair

Progress = Callable[[int, int], None]


def with_latency(
    evaluation: Evaluation,
    lvlm: LVLM,
    scorers: Sequence[Scorer],
    pairs: Sequence[Pair],
    sampling: SamplingConfig,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """Return ``evaluation`` with the measured latency of each selector, on one CPU thread.

    ``pairs`` are the first questions of the first group; the latency is added to the runs with the temperature and the
    number of samples of ``sampling``.
    """
    times: dict[str, list[float]] = {}
    with _one_thread():
        for number, scorer in enumerate(scorers):
            progress(number, len(scorers))
            times[scorer.selector.name] = answer_ms(
                Grounder(lvlm, scorer.selector, scorer.calibration), pairs, sampling
            )
        progress(len(scorers), len(scorers))
    group = evaluation.groups[0]
    runs = tuple(_timed(run, times.get(run.method, []), sampling) for run in group.runs)
    return replace(evaluation, groups=(Group(group.name, group.objects, group.questions, runs), *evaluation.groups[1:]))


def answer_ms(grounder: Grounder, pairs: Sequence[Pair], sampling: SamplingConfig) -> list[float]:
    """Return the wall time of each answer in milliseconds, from the image's pixels to the box. The first pair is asked
    twice, and its first time is discarded."""
    found = []
    for pair in (pairs[0], *pairs):
        image = pair.read()
        start = time.perf_counter()
        grounder.ground(image, pair.category, sampling=sampling)
        found.append((time.perf_counter() - start) * 1e3)
    return found[1:]


def _timed(run: Run, times: Sequence[float], sampling: SamplingConfig) -> Run:
    same = run.temperature is None or (run.temperature, run.samples) == (sampling.temperature, sampling.num_samples)
    if not same:
        return run
    measured = [replace(a, latency_ms=ms) for a, ms in zip(run.answers, times, strict=False)]
    return replace(run, answers=(*measured, *run.answers[len(measured) :]))


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
