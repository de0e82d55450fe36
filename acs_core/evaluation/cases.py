"""Selection of the example questions that the HTML report shows with their images (paper figure 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from acs_core.evaluation.metrics import GroupMetrics
from acs_core.evaluation.records import Prediction, Question
from acs_core.evaluation.rows import label
from acs_core.geometry import Box

# Share of each outcome among the shown cases, in the order of the page.
SHARES = {"won": 0.35, "lost": 0.25, "wrong": 0.25, "right": 0.15}
PICTURES = 120  # questions shown with their picture, in all

T = TypeVar("T")


@dataclass(frozen=True)
class Panel:
    """One run's prediction for one question.

    Attributes:
        name: label of the run.
        boxes: predicted boxes in pixels of the image.
        iou: IoU of the best box with the ground truth, in [0, 1].
        answer: the prediction that the boxes come from.
        right: whether the question counts as right.
    """

    name: str
    boxes: tuple[Box, ...]
    iou: float
    answer: Prediction
    right: bool


@dataclass(frozen=True)
class Case:
    """A question with the predictions of greedy decoding (if there are any) and of the selected run, in this order.

    Attributes:
        group: name of the group.
        question: the question.
        outcome: "won" (the selected run is right and greedy is wrong), "lost" (the reverse), "right" or "wrong" (both,
            or the only run).
        panels: the predictions.
    """

    group: str
    question: Question
    outcome: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Cases:
    """The cases selected for one group.

    Attributes:
        shown: the selected cases.
        totals: number of questions with each outcome in the whole group.
        compared: whether the cases hold greedy predictions beside those of the selected run.
    """

    shown: tuple[Case, ...]
    totals: dict[str, int]
    compared: bool


def choose_cases(measured: GroupMetrics, count: int, ours: int | None = None) -> Cases:
    """Select at most ``count`` cases that compare one run with greedy decoding.

    For several objects per question, a question is won if its F1 is higher than that of greedy.

    Args:
        measured: metrics of the group.
        count: maximum number of cases.
        ours: index of the run to compare with greedy; by default the best of our methods.
    """
    runs, outcomes = _compared(measured, ours)
    change = np.abs(measured.outcomes.iou[runs[-1]] - measured.outcomes.iou[runs[0]])
    totals = {name: int((outcomes == name).sum()) for name in SHARES}
    shown = []
    for name, wanted in _quotas(totals, count).items():
        places = np.flatnonzero(outcomes == name)
        if name in ("won", "lost"):
            places = places[np.argsort(-change[places], kind="stable")]
        elif len(places):  # these have no ranking: spread evenly over the data, by the golden ratio
            places = places[np.argsort(np.arange(len(places)) * 0.6180339887 % 1, kind="stable")]
        categories = [measured.group.questions[q].category for q in places]
        shown += [(name, int(places[i])) for i in _mixed(categories)[:wanted]]
    order = {name: k for k, name in enumerate(SHARES)}
    shown.sort(key=lambda pair: order[pair[0]])
    return Cases(tuple(_case(measured, q, name, runs) for name, q in shown), totals, len(runs) > 1)


def named_cases(measured: GroupMetrics, keys: Sequence[str], ours: int | None = None) -> tuple[Case, ...]:
    """Return the cases of the questions with these keys that the group has, in the order of ``keys``; ``ours`` as for
    :func:`choose_cases`."""
    runs, outcomes = _compared(measured, ours)
    places = {question.key: q for q, question in enumerate(measured.group.questions)}
    return tuple(_case(measured, places[k], str(outcomes[places[k]]), runs) for k in keys if k in places)


def _compared(measured: GroupMetrics, ours: int | None) -> tuple[list[int], np.ndarray]:
    """Return the runs to show, greedy first if it is another than ``ours``, and the outcome of each question (Q,)."""
    ours = measured.ours if ours is None else ours
    if ours is None:
        ours = measured.reference or 0
    compared = measured.reference is not None and measured.reference != ours
    runs = [measured.reference, ours] if compared and measured.reference is not None else [ours]
    worth = np.stack([_worth(measured, r) for r in runs])  # (1 or 2, Q)
    outcomes = np.where(worth[-1] >= 1, "right", "wrong")
    if compared:
        outcomes = np.where(worth[1] > worth[0], "won", np.where(worth[1] < worth[0], "lost", outcomes))
    return runs, outcomes


def _worth(measured: GroupMetrics, run: int) -> np.ndarray:
    """Return the F1 of each question, (Q,) in [0, 1]; 1 if there is neither a true nor a predicted box."""
    o = measured.outcomes
    truths = np.minimum(o.truths, 1) if o.single else o.truths
    of = o.told[run] + truths
    return np.where(of > 0, 2 * o.hits[run] / np.maximum(of, 1), 1.0)


def _quotas(totals: dict[str, int], count: int) -> dict[str, int]:
    """Return the number of cases per outcome: the shares of :data:`SHARES`; unused places go to the other outcomes."""
    wanted = {name: min(totals[name], int(count * share)) for name, share in SHARES.items()}
    while sum(wanted.values()) < min(count, sum(totals.values())):
        for name in SHARES:
            if wanted[name] < totals[name] and sum(wanted.values()) < count:
                wanted[name] += 1
    return wanted


def _mixed(categories: Sequence[T]) -> list[int]:
    """Return the indices of ``categories`` in round-robin order: one of each category, then a second of each, ..."""
    seen: dict[T, int] = {}
    turns = []
    for place, category in enumerate(categories):
        seen[category] = seen.get(category, 0) + 1
        turns.append((seen[category], place))
    return [place for _, place in sorted(turns)]


def _case(measured: GroupMetrics, q: int, outcome: str, runs: Sequence[int]) -> Case:
    panels = []
    for r in runs:
        run, o = measured.group.runs[r], measured.outcomes
        answer = run.answers[q]
        boxes = answer.boxes[:1] if o.single else answer.boxes
        panels.append(Panel(label(run), boxes, float(o.iou[r, q]), answer, bool(_worth(measured, r)[q] >= 1)))
    return Case(measured.group.name, measured.group.questions[q], outcome, tuple(panels))
