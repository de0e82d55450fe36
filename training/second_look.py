"""Second looks offline: where a judge would look again after a collected first one, and the calls that both make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from acs_core.judging import Judge
from acs_core.second_look import SecondLook, Seen, Window, second_seed, window_of
from training.collect import CollectConfig, Job
from training.offline_choice import Call
from training.pairs import Pair


def windows_of(calls: Iterable[Call], judge: Judge, look: SecondLook) -> dict[int, Window]:
    """Where ``judge`` would look again after each of ``calls`` about one object, by the number of its pair; those where
    it would not are left out."""
    found = {}
    for call in calls:
        if call.image_size is None:
            continue
        choice = judge.choose(call.candidates, call.responses, call.evidence, call.image_size)
        window = window_of(choice, call.image_size, look)
        if window:
            found[call.pair] = window
    return found


def second_job(pairs: Sequence[Pair], windows: Mapping[int, Window], first: CollectConfig, look: SecondLook) -> Job:
    """What to collect for the second looks at ``windows``, by pair number, after a first one as ``first`` says."""
    config = replace(first, samples=look.samples_after(first.samples), seed=second_seed(first.seed))
    return Job(tuple(pairs[i].within(window) for i, window in sorted(windows.items())), config)


def joined_calls(first: Iterable[Call], second: Iterable[Call], windows: Mapping[int, Window]) -> Iterator[Call]:
    """The calls of ``first``, with what the second look saw where there was one. ``second`` are the calls about the
    pairs of :func:`second_job`; both know their responses. The ``index`` of what the second look saw is -1: it is not
    of the first one's collection."""
    pairs = sorted(windows)
    again = {pairs[call.pair]: call for call in second}
    for call in first:
        more = again.get(call.pair)
        if more is None:
            yield call
            continue
        seen = Seen(call.candidates, call.responses, call.evidence)
        both = seen.with_second(Seen(more.candidates, more.responses, more.evidence), windows[call.pair])
        added = len(both.candidates) - len(call.candidates)
        yield Call(
            pair=call.pair,
            index=np.append(call.index, np.full(added, -1)),
            candidates=both.candidates,
            evidence=both.evidence,
            image_size=call.image_size,
            responses=both.responses,
        )
