"""Second looks in an evaluation: their collections, and a further run for each selector and temperature."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from acs_core.evaluation.records import SECOND_LOOK, Evaluation, Group, Run
from acs_core.lvlm.base import LVLM
from acs_core.selection.registry import is_learned
from acs_core.selection.scorer import Scorer
from acs_core.types import SecondLook
from training.collection.collect import collect
from training.collection.job import describe
from training.collection.offline_selection import Call, calls
from training.collection.second_look import joined_calls, second_job, windows_of
from training.collection.store import read_responses, read_store
from training.evaluation.cache import CollectionCache, answers_name, keep_runs, kept_runs
from training.evaluation.evaluate import EvaluateConfig, Move, Say, Wanted
from training.evaluation.runs import answer_to, check_hidden_states, kind_of
from training.settings import HALF_ABSENT

GROUPS = "small", HALF_ABSENT  # the questions that get a second look


def with_second_looks(
    evaluation: Evaluation,
    lvlm: LVLM,
    scorers: Sequence[Scorer],
    wanted: Sequence[Wanted],
    cache: CollectionCache,
    work: Path,
    config: EvaluateConfig,
    source: str,
    weights: str,
    say: Say = print,
    move: Move = lambda stage, done, total: None,
    look: SecondLook | None = None,
) -> Evaluation:
    """Return ``evaluation`` with a run "NAME + second look" for each of ``scorers`` over the questions about
    small objects, and about small or absent ones.

    Each selector looks again at its first answer; the second look is collected, and the selector chooses from both
    looks. ``samples`` of these runs counts the responses of the first look.

    Raises:
        DataError: a collection is damaged, or being made by another run, or does not hold the hidden states that a
            calibration reads.
    """
    look = look or SecondLook()
    groups = {group.name: group for group in evaluation.groups}
    if groups.keys().isdisjoint(GROUPS):
        say(f"no second looks: they are for {' and '.join(GROUPS)} objects, and there is no such question")
        return evaluation
    able = [scorer for scorer in scorers if scorer.can_look_again]
    for scorer in scorers:
        if scorer not in able:
            say(f"{scorer.selector.name}: no second look, it takes the first answer in any case")
    for name in GROUPS:
        if name not in groups:
            continue
        runs = [
            _finished(w, scorer, groups[name], lvlm, cache, work, config, look, source, weights, move)
            for w in wanted
            if w.group == name and w.temperature is not None
            for scorer in able
        ]
        groups[name] = replace(groups[name], runs=(*groups[name].runs, *runs))
    told = f"{look.samples_after(config.samples)} responses, zoom {look.zoom:g}"
    return replace(evaluation, groups=tuple(groups.values()), facts={**evaluation.facts, "second look": told})


def _finished(
    w: Wanted,
    scorer: Scorer,
    group: Group,
    lvlm: LVLM,
    cache: CollectionCache,
    work: Path,
    config: EvaluateConfig,
    look: SecondLook,
    source: str,
    weights: str,
    move: Move,
) -> Run:
    """Return the run of one collection, from the file of an earlier evaluation or newly made."""
    truth = [(question.key, question.truth) for question in group.questions]
    told = ("second look", "check_labels", look, w.content, config.samples, truth)
    file = work / "answers" / f"{answers_name(told, scorer)}.json.gz"
    found = kept_runs(file)
    if found is not None:
        return found.groups[0].runs[0]
    asked = {question.key for question in group.questions}
    included = {i for i, pair in enumerate(w.job.pairs) if pair.key in asked}
    data, answers = read_store(w.place.folder, may_be_empty=True), read_responses(w.place.folder)
    check_hidden_states(scorer, data, answers)

    def first() -> Iterator[Call]:
        found = calls(data, scorer.selector.needs.maps, answers)
        return (call.first(config.samples) for call in found if call.pair in included)

    windows = windows_of(first(), scorer, look)
    both: Iterator[Call] = first()
    if windows:
        job = second_job(w.job.pairs, windows, replace(w.job.config, samples=config.samples), look)
        place = cache.place(describe(lvlm, job, weights, source), job)
        if not place.complete:
            progress = partial(move, f"{w.title}: second look")
            collect(lvlm, job.pairs, place.folder, job.config, progress, weights, source)
        again = read_store(place.folder, may_be_empty=True)
        second = calls(again, scorer.selector.needs.maps, read_responses(place.folder))
        both = joined_calls(first(), second, windows)
    method = scorer.selector.name
    run = Run(
        method + SECOND_LOOK,
        w.temperature,
        config.samples,
        tuple(answer_to(call, scorer, group.objects) for call in both),
        kind_of(method),
        is_learned(method),
    )
    return keep_runs(Evaluation(w.title, (replace(group, runs=(run,)),)), file).groups[0].runs[0]
