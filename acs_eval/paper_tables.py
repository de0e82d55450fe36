"""The tables of the paper's section 5: accuracy, the regressor's error, the number of samples, several objects."""

from __future__ import annotations

from collections.abc import Callable

from acs_eval.bootstrap import Estimate
from acs_eval.metrics import Measured, Scores
from acs_eval.records import Evaluation
from acs_eval.rows import BEST_NOTE, INTERVAL_NOTE, METHOD, TAU, facts, in_order, mark_best, named, percent
from acs_eval.table import Cell, Column, Row, Table


def accuracy_table(measured: Measured) -> Table | None:
    """Table 2, and medium and large objects likewise: methods by temperature. None for a group of several objects."""
    if not measured.outcomes.single or not measured.outcomes.shown.any():
        return None
    runs = measured.group.runs
    order = in_order(runs, measured.main_runs)
    rows, gained = [], measured.reference is not None and len(order) > 1
    for r in order:
        s = measured.scores[r]
        gain = [percent(s.gain) if r != measured.reference else Cell(None)] if gained else []
        cells = (*named(s.run), percent(s.accuracy), percent(s.miou), *gain, Cell(100 * s.answered))
        rows.append(Row(cells, s.run.kind))
    columns = [METHOD, TAU, Column("Acc@0.5 %", "percent"), Column("mIoU %", "percent")]
    columns += [Column("gain on greedy %", "points")] if gained else []
    columns.append(Column("answered %", "percent"))
    rows = mark_best(rows, [runs[r] for r in order], (2, 3))
    notes = [facts(measured), INTERVAL_NOTE, *([BEST_NOTE] if len(order) > 1 else [])]
    notes += ["The gain is the relative one in Acc@0.5."] if gained else []
    notes.append("A question without a valid answer counts as IoU 0.")
    return Table("accuracy", "Accuracy", tuple(columns), tuple(rows), tuple(notes))


def detection_table(measured: Measured) -> Table | None:
    """Table 6: precision, recall and F1. None for a group of single objects all of which are there; where some are not,
    the share of false alarms is in it too."""
    o = measured.outcomes
    absent = not o.shown.all()
    if o.single and not absent:
        return None
    runs = measured.group.runs
    order = in_order(runs, measured.main_runs)
    rows = []
    for r in order:
        s = measured.scores[r]
        alarms = [Cell(None if s.false_alarms is None else 100 * s.false_alarms)] if absent else []
        rows.append(Row((*named(s.run), *(percent(e) for e in (s.precision, s.recall, s.f1)), *alarms), s.run.kind))
    columns = [METHOD, TAU, *(Column(f"{name} %", "percent") for name in ("precision", "recall", "F1"))]
    columns += [Column("false alarms %", "percent")] if absent else []
    notes = [facts(measured), INTERVAL_NOTE, *([BEST_NOTE] if len(order) > 1 else [])]
    notes.append(
        "Boxes of all questions together, the best first, matched one to one with true boxes from IoU 0.5 on: a second "
        "box about one object is wrong."
    )
    if absent:
        notes.append("False alarms: questions about what is not there that got a box all the same.")
    rows = mark_best(rows, [runs[r] for r in order], (2, 3, 4))
    return Table("detection", "Precision and recall", tuple(columns), tuple(rows), tuple(notes))


def samples_tables(measured: Measured) -> list[Table]:
    """Tables 4 and 5: one row a method and temperature, one column for each number of samples."""
    if not measured.outcomes.single:
        kinds: list[tuple[str, str, Callable[[Scores], Estimate]]] = [("f1", "F1", lambda s: s.f1)]
    else:
        kinds = [("accuracy", "Acc@0.5", lambda s: s.accuracy), ("miou", "mIoU", lambda s: s.miou)]
    series = by_samples(measured)
    counts = sorted({run.samples for runs in series.values() for run in (measured.group.runs[r] for r in runs)})
    tables = []
    for name, title, value in kinds if series else ():
        rows = []
        for (method, temperature), indices in series.items():
            found = {measured.group.runs[r].samples: percent(value(measured.scores[r])) for r in indices}
            top = max((c.value for c in found.values() if isinstance(c.value, float)), default=None)
            cells = [_with_best(found.get(n, Cell(None)), top) for n in counts]
            rows.append(Row((Cell(method), Cell(temperature), *cells), measured.group.runs[indices[0]].kind))
        columns = METHOD, TAU, *(Column(f"N = {n}", "percent") for n in counts)
        notes = INTERVAL_NOTE, "Best of its row *."
        tables.append(Table(f"samples-{name}", f"{title} % by number of samples", columns, tuple(rows), notes))
    return tables


def by_samples(measured: Measured) -> dict[tuple[str, float | None], list[int]]:
    """Runs of each method and temperature that was tried with several numbers of samples, by that number."""
    runs = measured.group.runs
    series: dict[tuple[str, float | None], list[int]] = {}
    for r in in_order(runs, range(len(runs))):
        series.setdefault((runs[r].method, runs[r].temperature), []).append(r)
    return {key: found for key, found in series.items() if len(found) > 1}


def regression_table(evaluation: Evaluation) -> Table | None:
    """Table 3. None where no regressor was judged."""
    if not evaluation.regressions:
        return None
    groups = len({r.group for r in evaluation.regressions}) > 1
    rows = []
    for r in evaluation.regressions:
        first = [Cell(r.group)] if groups else []
        rows.append(Row((*first, Cell(r.temperature), Cell(r.count), Cell(r.mae), Cell(r.pearson))))
    columns = [Column("questions")] if groups else []
    columns += [TAU, Column("candidates", "count"), Column("MAE", "ratio"), Column("Pearson r", "ratio")]
    notes = ("Predicted against true IoU of every sampled box.",)
    return Table("regression", "The regressor's predictions", tuple(columns), tuple(rows), notes)


def _with_best(cell: Cell, top: float | None) -> Cell:
    return Cell(cell.value, cell.low, cell.high, best=cell.value is not None and cell.value == top)
