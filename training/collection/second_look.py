"""Second looks in collections: their windows, the job that collects them, and calls that join both looks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from acs_core.lvlm.base import LVLM
from acs_core.selection.registry import Selector
from acs_core.selection.scorer import Scorer
from acs_core.selection.second_look import CandidateSet, Window, second_draw
from acs_core.types import SecondLook
from training.collection.collect import collect
from training.collection.job import CollectConfig, Job, config_of
from training.collection.offline_selection import Call, calls
from training.collection.store import read_responses, read_store
from training.data.pairs import Pair
from training.errors import DataError


def windows_of(calls: Iterable[Call], scorer: Scorer, look: SecondLook) -> dict[int, Window]:
    """Return the windows of second looks after the decisions of ``scorer`` for ``calls``, by pair index. Calls without
    a second look are left out."""
    found = {}
    for answered in calls:
        call = answered.seen_by(scorer.selector)
        if call.image_size is None:
            continue
        window, _ = scorer.second_window(call.decided(scorer), call.image_size, look)
        if window:
            found[call.pair] = window
    return found


def second_job(pairs: Sequence[Pair], windows: Mapping[int, Window], first: CollectConfig, look: SecondLook) -> Job:
    """Return the job that collects second looks at ``windows``, by pair index, after a first look with the settings
    ``first``."""
    samples, seed = second_draw(look, first.samples, first.seed)
    config = replace(first, samples=samples, seed=seed)
    return Job(tuple(pairs[i].within(window) for i, window in sorted(windows.items())), config)


def joined_calls(first: Iterable[Call], second: Iterable[Call], windows: Mapping[int, Window]) -> Iterator[Call]:
    """Yield the calls of ``first``, joined with those of the second look for pairs that have one.

    Args:
        first: calls of the first look, with their responses.
        second: calls of the pairs of :func:`second_job`, with their responses.
        windows: windows by pair index.
    """
    pairs = sorted(windows)
    again = {pairs[call.pair]: call for call in second}
    for call in first:
        more = again.get(call.pair)
        if more is None:
            yield call
            continue
        seen = CandidateSet(call.candidates, call.responses, call.record)
        both = seen.with_second(CandidateSet(more.candidates, more.responses, more.record), windows[call.pair])
        added = len(both.candidates) - len(call.candidates)
        yield Call(
            pair=call.pair,
            index=np.append(call.index, np.full(added, -1)),
            candidates=both.candidates,
            record=both.record,
            image_size=call.image_size,
            responses=both.responses,
            looked_again=True,
            phrase=call.phrase,
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
    """Return the calls of the collection ``store`` for which ``selector`` triggers a second look, joined with it.

    Args:
        lvlm: the model to sample.
        selector: the selector.
        store: folder of the first looks' collection.
        pairs: pairs of the annotation file, by key.
        folder: folder that the second looks are collected into, or resumed in.
        look: settings of the second look.
        progress: called with (done, total).

    Raises:
        DataError: ``pairs`` lacks a pair of the collection or has other true boxes for it; or as in
            :func:`training.collection.collect.collect`.
    """
    look = look or SecondLook()
    data, answers = read_store(store), read_responses(store)
    asked = [pairs.get(key) for key in data.manifest["pairs"]]
    for number, (key, pair) in enumerate(zip(data.manifest["pairs"], asked, strict=True)):
        if pair is None or pair.truth != data.truth(number):
            raise DataError(f"{store} was collected from other annotations: {key} is not in them, or has other boxes")

    def first() -> Iterator[Call]:
        return calls(data, selector.needs.maps, answers)

    windows = windows_of(first(), Scorer(selector, None), look)
    if not windows:
        return []
    job = second_job([pair for pair in asked if pair], windows, config_of(data.manifest), look)
    collect(lvlm, job.pairs, folder, job.config, progress, data=str(data.manifest.get("data", "")))
    second = calls(read_store(folder, may_be_empty=True), selector.needs.maps, read_responses(folder))
    return [call for call in joined_calls(first(), second, windows) if call.looked_again]
