"""Second looks offline: where a judge would look again after a collected first one, and the calls that both make."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from acs_core.judging import Judge
from acs_core.lvlm.base import LVLM
from acs_core.second_look import SecondLook, Seen, Window, second_seed, window_of
from acs_core.selection import Selector
from training.collect import collect
from training.collect_job import CollectConfig, Job, config_of
from training.errors import DataError
from training.offline_choice import Call, calls
from training.pairs import Pair
from training.store import read_responses, read_store


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
    pairs of :func:`second_job`; both know their responses."""
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
            looked_again=True,
        )


def look_again(
    lvlm: LVLM,
    selector: Selector,
    store: Path,
    pairs: Mapping[str, Pair],
    folder: Path,
    look: SecondLook | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Call]:
    """The calls of the collection ``store`` that come with a second look where ``selector`` chose. What the second look
    sees is collected into ``folder``, or gone on with there. ``pairs`` are those of the annotation file by their keys.

    Raises:
        DataError: ``pairs`` lack one of the collection, or it has other boxes there; or as in
            :func:`training.collect.collect`.
    """
    look = look or SecondLook()
    data, answers = read_store(store), read_responses(store)
    asked = [pairs.get(key) for key in data.manifest["pairs"]]
    for number, (key, pair) in enumerate(zip(data.manifest["pairs"], asked, strict=True)):
        if pair is None or pair.truth != data.truth(number):
            raise DataError(f"{store} was collected from other annotations: {key} is not in them, or has other boxes")

    def first() -> Iterator[Call]:
        return calls(data, selector.needs.maps, answers)

    windows = windows_of(first(), Judge(selector, None), look)
    if not windows:
        return []
    job = second_job([pair for pair in asked if pair], windows, config_of(data.manifest), look)
    collect(lvlm, job.pairs, folder, job.config, progress, data=str(data.manifest.get("data", "")))
    second = calls(read_store(folder, may_be_empty=True), selector.needs.maps, read_responses(folder))
    return [call for call in joined_calls(first(), second, windows) if call.looked_again]
