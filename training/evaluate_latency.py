"""The time of an answer, end to end through the front door, for each selector."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch

from acs_core.grounder import Grounder
from acs_core.judging import Judge
from acs_core.lvlm.base import LVLM
from acs_core.types import SamplingConfig
from acs_eval.records import Evaluation, Group, Run
from training.pairs import Pair

Progress = Callable[[int, int], None]


def with_latency(
    evaluation: Evaluation,
    lvlm: LVLM,
    judges: Sequence[Judge],
    pairs: Sequence[Pair],
    sampling: SamplingConfig,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """``evaluation`` with the measured time of each selector's answers to ``pairs``, which are the first questions of
    its first group: in the runs with the temperature and the number of samples of ``sampling``. One CPU thread."""
    times: dict[str, list[float]] = {}
    with _one_thread():
        for number, judge in enumerate(judges):
            progress(number, len(judges))
            times[judge.selector.name] = answer_ms(Grounder(lvlm, judge.selector, judge.calibration), pairs, sampling)
        progress(len(judges), len(judges))
    group = evaluation.groups[0]
    runs = tuple(_timed(run, times.get(run.method, []), sampling) for run in group.runs)
    return replace(evaluation, groups=(Group(group.name, group.objects, group.questions, runs), *evaluation.groups[1:]))


def answer_ms(grounder: Grounder, pairs: Sequence[Pair], sampling: SamplingConfig) -> list[float]:
    """Wall milliseconds of each answer, from the picture's pixels to the box; the first pair is asked twice, and the
    first time is not counted."""
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
