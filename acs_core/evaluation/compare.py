"""Paired comparison of two evaluations of the same questions: differences, intervals and p-values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from acs_core.errors import AcsError
from acs_core.evaluation.metrics import GroupMetrics, measure
from acs_core.evaluation.records import Evaluation, Group, Run
from acs_core.evaluation.rows import counted, label, percent
from acs_core.evaluation.statistics import DRAWS
from acs_core.evaluation.table import IN_BRACKETS, Cell, Column, Table, TableRow

MEASURES = {"accuracy": "Acc@0.5", "miou": "mIoU", "precision": "precision", "recall": "recall", "f1": "F1"}


class ComparisonError(AcsError):
    """Raised if two evaluations have no group, run or question in common, or their measures differ."""


@dataclass(frozen=True)
class Comparison:
    """One run of the first evaluation compared with the matching run of the second.

    Attributes:
        names: titles of the two evaluations.
        labels: labels of the two runs.
        measured: metrics of the shared questions; run 0 is the first evaluation's, run 1 the second's.
        only: number of questions that only the first and only the second evaluation has.
        moved: number of shared questions left out because their true boxes differ.
    """

    names: tuple[str, str]
    labels: tuple[str, str]
    measured: GroupMetrics
    only: tuple[int, int]
    moved: int

    @property
    def won(self) -> list[int]:
        """Indices of the questions that only the second run got right, largest IoU gain first."""
        return self._changed(1)

    @property
    def lost(self) -> list[int]:
        """Indices of the questions that only the first run got right, largest IoU gain first."""
        return self._changed(0)

    def _changed(self, winner: int) -> list[int]:
        o = self.measured.outcomes
        places = np.flatnonzero(o.shown & o.right[winner] & ~o.right[1 - winner])
        gain = o.iou[winner] - o.iou[1 - winner]
        return [int(q) for q in sorted(places, key=lambda q: (-gain[q], q))]


def compare(first: Evaluation, second: Evaluation, draws: int = DRAWS, seed: int = 0) -> tuple[Comparison, ...]:
    """Compare every run that both evaluations have.

    Groups are matched by name, runs by method, temperature and number of samples, questions by key. If both evaluations
    have a single group, or both groups a single run, these are compared whatever their names.

    Args:
        first, second: the evaluations.
        draws: number of bootstrap resamples, 1 to 1,000,000.
        seed: seed of the bootstrap, 0 to 2^32 - 1.

    Raises:
        ComparisonError: there is no common group, run or question, or a key names two questions.
    """
    found = []
    for one, other in _same_groups(first, second):
        shared, only, moved = _same_questions(one, other)
        for run, again in _same_runs(one, other):
            questions = tuple(one.questions[i] for i, _ in shared)
            runs = (
                replace(run, method="first", answers=tuple(run.answers[i] for i, _ in shared)),
                replace(again, method="second", answers=tuple(again.answers[k] for _, k in shared)),
            )
            measured = measure(Group(one.name, one.objects, questions, runs), draws, seed)
            found.append(Comparison((first.title, second.title), (label(run), label(again)), measured, only, moved))
    if not found:
        raise ComparisonError(
            f'"{first.title}" and "{second.title}" have no run in common: a group of the same name, and in it a run of '
            "the same method, temperature and number of samples"
        )
    return tuple(found)


def comparison_table(comparison: Comparison) -> Table:
    """Return the table of every measure: both values, their difference with its interval, and the p-value."""
    measured, rows = comparison.measured, []
    single = measured.outcomes.single
    complete = bool(measured.outcomes.shown.all())
    for name in ("accuracy", "miou") if single and complete else MEASURES if single else ("precision", "recall", "f1"):
        drawn = measured.drawn[name]
        one, other = drawn.estimates()
        difference = drawn.run(1) - drawn.run(0)
        cells = percent(difference.estimates()[0]), Cell(float(difference.p_values()[0]))
        rows.append(TableRow((Cell(f"{MEASURES[name]} %"), Cell(100 * one.value), Cell(100 * other.value), *cells)))
    errors = [measured.calibration(r) for r in (0, 1)]
    if errors[0] and errors[1]:
        values = [100 * e.error for e in errors if e]
        rows.append(_plain("calibration error %", values))
    latencies = [measured.latency(r) for r in (0, 1)]
    if latencies[0] and latencies[1]:
        rows += [_plain(f"{p} ms", [getattr(found, p) for found in latencies]) for p in ("p50", "p90", "p99")]
    columns = (
        Column("Measure"),
        Column(f"A: {comparison.labels[0]}", "percent"),
        Column(f"B: {comparison.labels[1]}", "percent"),
        Column("B - A", "points"),
        Column("p", "p"),
    )
    return Table(
        "comparison", f"A and B on the same questions: {measured.group.name}", columns, tuple(rows), _notes(comparison)
    )


def changed_table(comparison: Comparison, limit: int | None = None) -> Table | None:
    """Return the table of questions that only one run got right, at most ``limit`` per direction; None if there are
    none."""
    o, questions = comparison.measured.outcomes, comparison.measured.group.questions
    rows = []
    for word, places in (("won", comparison.won), ("lost", comparison.lost)):
        for q in places[:limit]:
            asked = questions[q]
            ious = [Cell(float(o.iou[r, q])) for r in (0, 1)]
            rows.append(TableRow((Cell(word), Cell(asked.key), Cell(asked.phrase), Cell(asked.image), *ious)))
    if not rows:
        return None
    columns = (
        Column(""),
        Column("question"),
        Column("phrase"),
        Column("picture", spare=1),
        Column("A: IoU", "iou"),
        Column("B: IoU", "iou"),
    )
    left = len(comparison.won) + len(comparison.lost) - len(rows)
    notes = (f"{left} more are not shown.",) if left else ()
    return Table("changed", f"Questions that changed: {comparison.measured.group.name}", columns, tuple(rows), notes)


def comparison_tables(comparisons: Sequence[Comparison], limit: int | None = None) -> tuple[Table, ...]:
    """Return the tables of all comparisons; their names are numbered if there are several comparisons."""
    tables = []
    for number, comparison in enumerate(comparisons, 1):
        for table in (comparison_table(comparison), changed_table(comparison, limit)):
            if table:
                name = f"{number}-{table.name}" if len(comparisons) > 1 else table.name
                tables.append(replace(table, name=name))
    return tuple(tables)


def _notes(comparison: Comparison) -> tuple[str, ...]:
    measured, (first, second) = comparison.measured, comparison.only
    notes = [f"A: {comparison.names[0]}. B: {comparison.names[1]}."]
    text = f"{counted(len(measured.group.questions), 'question')} in both"
    text += f"; {first} only in A, {second} only in B" if first or second else ""
    text += f"; {comparison.moved} left out, since their true boxes differ" if comparison.moved else ""
    notes.append(f"{text}.")
    notes.append(f"{IN_BRACKETS}: 95 % intervals of a paired bootstrap over pictures.")
    notes.append("p in the table: a paired bootstrap over pictures tests whether B - A of that measure is 0.")
    if measured.outcomes.single and measured.outcomes.shown.any():
        found = measured.against(1, 0)
        test = "too few questions to test" if measured.few else f"McNemar's exact test: p = {found.mcnemar:.3g}"
        notes.append(f"B won {counted(found.won, 'question')} and lost {found.lost} ({test}).")
        notes.append(_which_p(measured))
    return tuple(notes)


def _which_p(measured: GroupMetrics) -> str:
    """Return the sentence that says which p-value to go by for which measure."""
    if measured.few:
        return "With so few questions the table's p is not reliable either: go by neither, and ask about more pictures."
    text = "McNemar's test asks whether questions won and lost (the change of Acc@0.5) differ by more than chance."
    pictures = measured.outcomes.image[measured.outcomes.shown]
    if len(np.unique(pictures)) == len(pictures):
        return (
            f"{text} For Acc@0.5 go by it: it is exact for few questions too; for other measures go by the table's p."
        )
    return (
        f"{text} It takes questions as independent, and here several are about one picture: for Acc@0.5 go by the "
        "larger p of both, for other measures by the table's."
    )


def _plain(name: str, values: Sequence[float]) -> TableRow:
    return TableRow((Cell(name), Cell(values[0]), Cell(values[1]), Cell(values[1] - values[0]), Cell(None)))


def _same_groups(first: Evaluation, second: Evaluation) -> list[tuple[Group, Group]]:
    if len(first.groups) == len(second.groups) == 1:
        pairs = [(first.groups[0], second.groups[0])]
    else:
        by_name = {group.name: group for group in second.groups}
        pairs = [(group, by_name[group.name]) for group in first.groups if group.name in by_name]
    for one, other in pairs:
        if one.objects != other.objects:
            raise ComparisonError(
                f'group "{one.name}" of "{first.title}" is about {one.objects} objects, "{other.name}" of '
                f'"{second.title}" about {other.objects}: their measures differ'
            )
    return pairs


def _same_questions(one: Group, other: Group) -> tuple[list[tuple[int, int]], tuple[int, int], int]:
    """Match the questions of two groups by key.

    Returns:
        Index pairs of the shared questions with equal true boxes, the number of questions that only the first and only
        the second group has, and the number of shared questions with different true boxes.
    """
    places = []
    for group in (one, other):
        places.append({q.key: i for i, q in enumerate(group.questions)})
        if len(places[-1]) != len(group.questions):
            raise ComparisonError(f'group "{group.name}" has several questions of one key; they cannot be told apart')
    both = [(i, places[1][key]) for key, i in places[0].items() if key in places[1]]
    if not both:
        raise ComparisonError(f'group "{one.name}": no question is in both; were they asked about the same data?')
    shared = [(i, k) for i, k in both if one.questions[i].truth == other.questions[k].truth]
    if not shared:
        raise ComparisonError(
            f'group "{one.name}": the true boxes of every question differ; are they of the same data?'
        )
    return shared, (len(places[0]) - len(both), len(places[1]) - len(both)), len(both) - len(shared)


def _same_runs(one: Group, other: Group) -> list[tuple[Run, Run]]:
    if len(one.runs) == len(other.runs) == 1:
        return [(one.runs[0], other.runs[0])]
    by_setting = {(r.method, r.temperature, r.samples): r for r in other.runs}
    return [(r, by_setting[s]) for r in one.runs if (s := (r.method, r.temperature, r.samples)) in by_setting]
