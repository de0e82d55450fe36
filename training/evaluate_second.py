"""Second looks in an evaluation: collections of their own, and one more run for each selector and temperature."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from acs_core.judging import Judge
from acs_core.lvlm.base import LVLM
from acs_core.second_look import SecondLook
from acs_core.selection import FirstInOrder
from acs_core.types import ScoreKind
from acs_eval.records import Evaluation, Group, Run
from acs_eval.storage import EvaluationError, load, save
from training.collect import collect
from training.collect_job import describe
from training.evaluate import EvaluateConfig, Move, Say, Wanted
from training.evaluate_cache import Shelf, answers_name
from training.evaluate_runs import answer_to, kind_of
from training.offline_choice import Call, calls
from training.second_look import joined_calls, second_job, windows_of
from training.store import read_responses, read_store

GROUP = "small"  # what a second look is for
SUFFIX = " + second look"


def with_second_looks(
    evaluation: Evaluation,
    lvlm: LVLM,
    judges: Sequence[Judge],
    wanted: Sequence[Wanted],
    shelf: Shelf,
    work: Path,
    config: EvaluateConfig,
    source: str,
    weights: str,
    say: Say = print,
    move: Move = lambda stage, done, total: None,
    look: SecondLook | None = None,
) -> Evaluation:
    """``evaluation`` with runs "NAME + second look" over the small objects: each of ``judges`` looks again where its
    first answer was, which is collected, and chooses from both looks. ``samples`` of such a run are the first look's.

    Raises:
        DataError: a collection is damaged, or being made by another run.
    """
    look = look or SecondLook()
    groups = {group.name: group for group in evaluation.groups}
    if GROUP not in groups:
        say(f"no second looks: they are for {GROUP} objects, and there is no such question")
        return evaluation
    able = [j for j in judges if not isinstance(j.selector, FirstInOrder)]
    for judge in judges:
        if judge not in able:
            say(f"{judge.selector.name}: no second look, it takes the first answer in any case")
    runs = [
        _finished(w, judge, groups[GROUP], lvlm, shelf, work, config, look, source, weights, move)
        for w in wanted
        if w.group == GROUP and w.temperature is not None
        for judge in able
    ]
    groups[GROUP] = replace(groups[GROUP], runs=(*groups[GROUP].runs, *runs))
    told = f"{look.samples_after(config.samples)} responses, zoom {look.zoom:g}"
    return replace(evaluation, groups=tuple(groups.values()), facts={**evaluation.facts, "second look": told})


def _finished(
    w: Wanted,
    judge: Judge,
    group: Group,
    lvlm: LVLM,
    shelf: Shelf,
    work: Path,
    config: EvaluateConfig,
    look: SecondLook,
    source: str,
    weights: str,
    move: Move,
) -> Run:
    """The run over one collection: from the file of an earlier evaluation, or made and kept."""
    truth = [(question.key, question.truth) for question in group.questions]
    told = ("second look", look, w.content, config.samples, truth)
    file = work / "answers" / f"{answers_name(told, judge)}.json.gz"
    if file.exists():
        try:
            return load(file).groups[0].runs[0]
        except EvaluationError:
            file.unlink()  # damaged: made again
    asked = {question.key for question in group.questions}
    kept = {i for i, pair in enumerate(w.job.pairs) if pair.key in asked}
    data, answers = read_store(w.place.folder, may_be_empty=True), read_responses(w.place.folder)

    def first() -> Iterator[Call]:
        found = calls(data, judge.selector.needs.maps, answers)
        return (call.first(config.samples) for call in found if call.pair in kept)

    windows = windows_of(first(), judge, look)
    both: Iterator[Call] = first()
    if windows:
        job = second_job(w.job.pairs, windows, replace(w.job.config, samples=config.samples), look)
        place = shelf.place(describe(lvlm, job, weights, source), job)
        if not place.complete:
            progress = partial(move, f"{w.title}: second look")
            collect(lvlm, job.pairs, place.folder, job.config, progress, weights, source)
        again = read_store(place.folder, may_be_empty=True)
        second = calls(again, judge.selector.needs.maps, read_responses(place.folder))
        both = joined_calls(first(), second, windows)
    method = judge.selector.name
    run = Run(
        method + SUFFIX,
        w.temperature,
        config.samples,
        tuple(answer_to(call, judge, group.objects) for call in both),
        kind_of(method),
        judge.selector.score_kind is ScoreKind.PREDICTED_IOU,
    )
    return save(Evaluation(w.title, (replace(group, runs=(run,)),)), file).groups[0].runs[0]
