"""Which questions a report shows with their pictures: some of each outcome and category (paper figure 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from acs_core.geometry import Box
from acs_eval.metrics import Measured
from acs_eval.records import Answer, Question
from acs_eval.rows import label

# Of the pictures that are shown, the share of each outcome, in the order of the page; what one lacks the others get.
SHARES = {"won": 0.35, "lost": 0.25, "wrong": 0.25, "right": 0.15}

T = TypeVar("T")


@dataclass(frozen=True)
class Panel:
    """One answer to a question: ``name`` of the method, its ``boxes`` and the best one's ``iou``."""

    name: str
    boxes: tuple[Box, ...]
    iou: float
    answer: Answer
    right: bool


@dataclass(frozen=True)
class Case:
    """A question with its answers, greedy's first. ``outcome``: "won" (ours is right and greedy wrong), "lost" (the
    reverse), "right" or "wrong" (both, or the only one)."""

    group: str
    question: Question
    outcome: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Cases:
    """The ``shown`` cases of a group, and how many questions have each outcome in all. ``compared`` tells whether there
    are greedy answers beside ours."""

    shown: tuple[Case, ...]
    totals: dict[str, int]
    compared: bool


def choose_cases(measured: Measured, count: int, ours: int | None = None) -> Cases:
    """At most ``count`` cases of run ``ours``, by default the best of ours, against greedy. With several objects a
    question is won where more of its boxes are right, for the number of boxes (F1)."""
    ours = measured.ours if ours is None else ours
    if ours is None:
        ours = measured.reference or 0
    compared = measured.reference is not None and measured.reference != ours
    runs = [measured.reference, ours] if compared and measured.reference is not None else [ours]
    worth = np.stack([_worth(measured, r) for r in runs])  # (1 or 2, Q)
    outcomes = np.where(worth[-1] >= 1, "right", "wrong")
    if compared:
        outcomes = np.where(worth[1] > worth[0], "won", np.where(worth[1] < worth[0], "lost", outcomes))
    change = np.abs(measured.outcomes.iou[runs[-1]] - measured.outcomes.iou[runs[0]])
    totals = {name: int((outcomes == name).sum()) for name in SHARES}
    shown = []
    for name, wanted in _quotas(totals, count).items():
        places = np.flatnonzero(outcomes == name)
        if name in ("won", "lost"):
            places = places[np.argsort(-change[places], kind="stable")]
        elif len(places):  # nothing ranks these: as they come, evenly spread over the data
            places = places[np.argsort(np.arange(len(places)) * 0.6180339887 % 1, kind="stable")]
        categories = [measured.group.questions[q].category for q in places]
        shown += [(name, int(places[i])) for i in _mixed(categories)[:wanted]]
    order = {name: k for k, name in enumerate(SHARES)}
    shown.sort(key=lambda pair: order[pair[0]])
    return Cases(tuple(_case(measured, q, name, runs) for name, q in shown), totals, compared)


def _worth(measured: Measured, run: int) -> np.ndarray:
    """(Q,) 1 where everything is right, 0 where nothing is; where nothing is there, no box is right."""
    o = measured.outcomes
    truths = np.minimum(o.truths, 1) if o.single else o.truths
    of = o.told[run] + truths
    return np.where(of > 0, 2 * o.hits[run] / np.maximum(of, 1), 1.0)


def _quotas(totals: dict[str, int], count: int) -> dict[str, int]:
    """How many of each outcome are shown: as ``SHARES`` says, what one lacks going to the others."""
    wanted = {name: min(totals[name], int(count * share)) for name, share in SHARES.items()}
    while sum(wanted.values()) < min(count, sum(totals.values())):
        for name in SHARES:
            if wanted[name] < totals[name] and sum(wanted.values()) < count:
                wanted[name] += 1
    return wanted


def _mixed(categories: Sequence[T]) -> list[int]:
    """Places of ``categories`` in an order that takes one of each, then a second of each, and so on."""
    seen: dict[T, int] = {}
    turns = []
    for place, category in enumerate(categories):
        seen[category] = seen.get(category, 0) + 1
        turns.append((seen[category], place))
    return [place for _, place in sorted(turns)]


def _case(measured: Measured, q: int, outcome: str, runs: Sequence[int]) -> Case:
    panels = []
    for r in runs:
        run, o = measured.group.runs[r], measured.outcomes
        answer = run.answers[q]
        boxes = answer.boxes[:1] if o.single else answer.boxes
        panels.append(Panel(label(run), boxes, float(o.iou[r, q]), answer, bool(_worth(measured, r)[q] >= 1)))
    return Case(measured.group.name, measured.group.questions[q], outcome, tuple(panels))
