"""Several evaluations in one table, as the paper's table 2 has models and data sets side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from acs_eval.metrics import Measured
from acs_eval.records import Run
from acs_eval.rows import BEST_NOTE, METHOD, TAU, in_order, mark_best, named, percent
from acs_eval.table import Cell, Column, Row, Table
from acs_eval.tables import Assessed, tables_of


def overview_table(assessed: Sequence[Assessed]) -> Table | None:
    """Methods by temperature, Acc@0.5 and mIoU of every group of single objects of every evaluation. None where there
    are less than two."""
    groups = [(a, m) for a in assessed for m in a.measured if m.outcomes.single]
    if len(groups) < 2 or len(assessed) < 2:
        return None
    settings: dict[tuple[str, float | None], Run] = {}
    found: list[dict[tuple[str, float | None], int]] = []
    for _, measured in groups:
        runs = measured.group.runs
        found.append({(runs[r].method, runs[r].temperature): r for r in measured.main_runs})
        for r in measured.main_runs:
            settings.setdefault((runs[r].method, runs[r].temperature), runs[r])
    listed = list(settings.values())
    order = [listed[i] for i in in_order(listed, range(len(listed)))]
    rows = []
    for run in order:
        cells: list[Cell] = []
        for (_, measured), have in zip(groups, found, strict=True):
            cells += _values(measured, have.get((run.method, run.temperature)))
        rows.append(Row((*named(run), *cells), run.kind))
    columns = [METHOD, TAU]
    for a, measured in groups:
        several = sum(m.outcomes.single for m in a.measured) > 1
        head = f"{a.evaluation.title}, {measured.group.name}" if several else a.evaluation.title
        columns += [Column("Acc@0.5 %", "percent", head), Column("mIoU %", "percent", head)]
    rows = mark_best(rows, order, range(2, len(columns)))
    return Table("overview", "All evaluations", tuple(columns), tuple(rows), (BEST_NOTE,))


def tables_of_all(assessed: Sequence[Assessed]) -> tuple[Table, ...]:
    """The overview and the tables of every evaluation; where there are several, their names begin with the evaluation's
    number and their titles end with its own."""
    if len(assessed) == 1:
        return tables_of(assessed[0])
    overview = overview_table(assessed)
    tables = [overview] if overview else []
    for number, a in enumerate(assessed, 1):
        title = a.evaluation.title
        tables += [replace(t, name=f"{number}-{t.name}", title=f"{t.title} ({title})") for t in tables_of(a)]
    return tuple(tables)


def _values(measured: Measured, run: int | None) -> list[Cell]:
    if run is None:
        return [Cell(None), Cell(None)]
    return [percent(measured.scores[run].accuracy), percent(measured.scores[run].miou)]
