"""Tables 1 to 6 of the paper: critical layers, accuracy, precision and recall, number of samples, regressor error."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from acs_core.evaluation.metrics import GroupMetrics, Scores
from acs_core.evaluation.records import Evaluation
from acs_core.evaluation.rows import BEST_NOTE, INTERVAL_NOTE, METHOD, TAU, facts, in_order, mark_best, named, percent
from acs_core.evaluation.statistics import Estimate
from acs_core.evaluation.table import Cell, Column, Table, TableRow

LAYERS_FROM = "critical layers from"  # fact of an evaluation: where its critical layers come from


def accuracy_table(measured: GroupMetrics) -> Table | None:
    """Return the table of Acc@0.5 and mIoU by method and temperature (table 2); None for a group of several objects."""
    if not measured.outcomes.single or not measured.outcomes.shown.any():
        return None
    runs = measured.group.runs
    order = in_order(runs, measured.main_runs)
    rows, gained = [], measured.reference is not None and len(order) > 1 and not measured.few
    for r in order:
        s = measured.scores[r]
        gain = [percent(s.gain) if r != measured.reference else Cell(None)] if gained else []
        cells = (*named(s.run), percent(s.accuracy), percent(s.miou), *gain, Cell(100 * s.answered))
        rows.append(TableRow(cells, s.run.kind))
    columns = [METHOD, TAU, Column("Acc@0.5 %", "percent"), Column("mIoU %", "percent")]
    columns += [Column("gain on greedy %", "points")] if gained else []
    columns.append(Column("answered %", "percent"))
    rows = mark_best(rows, [runs[r] for r in order], (2, 3))
    notes = [facts(measured), INTERVAL_NOTE, *([BEST_NOTE] if len(order) > 1 else [])]
    notes += ["The gain is the relative one in Acc@0.5."] if gained else []
    notes.append("A question without a valid answer counts as IoU 0.")
    return Table("accuracy", "Accuracy", tuple(columns), tuple(rows), tuple(notes))


def detection_table(measured: GroupMetrics) -> Table | None:
    """Return the table of precision, recall and F1 (table 6), with false alarms if some objects are not in the image.

    Returns None for a group of single objects that are all in their image.
    """
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
        rows.append(
            TableRow((*named(s.run), *(percent(e) for e in (s.precision, s.recall, s.f1)), *alarms), s.run.kind)
        )
    columns = [METHOD, TAU, *(Column(f"{name} %", "percent") for name in ("precision", "recall", "F1"))]
    columns += [Column("false alarms %", "percent")] if absent else []
    notes = [facts(measured), INTERVAL_NOTE, *([BEST_NOTE] if len(order) > 1 else [])]
    notes.append(
        "Boxes of all questions together, the best first, matched one to one with true boxes from IoU 0.5 on: a second "
        "box about one object is wrong."
    )
    if absent:
        notes.append("False alarms: questions about absent objects that got a box.")
    rows = mark_best(rows, [runs[r] for r in order], (2, 3, 4))
    return Table("detection", "Precision and recall", tuple(columns), tuple(rows), tuple(notes))


def samples_tables(measured: GroupMetrics) -> list[Table]:
    """Return the tables by number of samples (tables 4 and 5): one row per method and temperature."""
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
            rows.append(TableRow((Cell(method), Cell(temperature), *cells), measured.group.runs[indices[0]].kind))
        columns = METHOD, TAU, *(Column(f"N = {n}", "percent") for n in counts)
        notes = INTERVAL_NOTE, "Best of its row *."
        tables.append(Table(f"samples-{name}", f"{title} % by number of samples", columns, tuple(rows), notes))
    return tables


def by_samples(measured: GroupMetrics) -> dict[tuple[str, float | None], list[int]]:
    """Return the run indices of each (method, temperature) that was run with several numbers of samples, fewest
    first."""
    runs = measured.group.runs
    series: dict[tuple[str, float | None], list[int]] = {}
    for r in in_order(runs, range(len(runs))):
        series.setdefault((runs[r].method, runs[r].temperature), []).append(r)
    return {key: found for key, found in series.items() if len(found) > 1}


def regression_table(evaluation: Evaluation) -> Table | None:
    """Return the table of the regressor's errors (table 3); None if no regressor was evaluated."""
    if not evaluation.regressions:
        return None
    groups = len({r.group for r in evaluation.regressions}) > 1
    rows = []
    for r in evaluation.regressions:
        first = [Cell(r.group)] if groups else []
        rows.append(TableRow((*first, Cell(r.temperature), Cell(r.count), Cell(r.mae), Cell(r.pearson))))
    columns = [Column("questions")] if groups else []
    columns += [TAU, Column("candidates", "count"), Column("MAE", "ratio"), Column("Pearson r", "ratio")]
    notes = ("Predicted against true IoU of every sampled box.",)
    return Table("regression", "The regressor's predictions", tuple(columns), tuple(rows), notes)


def layers_table(evaluations: Sequence[Evaluation]) -> Table | None:
    """Return the table of the localization-critical layers by model (table 1); None if no evaluation has any."""
    rows = {}
    for e in evaluations:
        if e.critical_layers:
            layers = ", ".join(map(str, sorted(e.critical_layers)))
            origin = e.facts.get(LAYERS_FROM, "")
            rows[e.facts.get("model", e.title), layers] = TableRow(
                (Cell(e.facts.get("model", e.title)), Cell(layers), Cell(origin or None))
            )
    if not rows:
        return None
    columns = Column("Model"), Column("Layers"), Column("from")
    notes = ("Layers are counted from 0.",)
    return Table("critical-layers", "Localization-critical layers", columns, tuple(rows.values()), notes)


def _with_best(cell: Cell, top: float | None) -> Cell:
    return Cell(cell.value, cell.low, cell.high, best=cell.value is not None and cell.value == top)
