"""One table of several evaluations, like table 2 of the paper with models and datasets side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from acs_core.evaluation.metrics import GroupMetrics
from acs_core.evaluation.paper_tables import layers_table
from acs_core.evaluation.records import Run
from acs_core.evaluation.rows import BEST_NOTE, METHOD, TAU, in_order, mark_best, named, percent
from acs_core.evaluation.table import Cell, Column, Table, TableRow
from acs_core.evaluation.tables import Assessed, tables_of

LAYERS = "critical-layers"  # name of the table that is merged


def overview_table(assessed: Sequence[Assessed]) -> Table | None:
    """Return Acc@0.5 and mIoU of each method and temperature, for every single-object group of every evaluation.

    Returns None for fewer than two evaluations or groups.
    """
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
        rows.append(TableRow((*named(run), *cells), run.kind))
    columns = [METHOD, TAU]
    for a, measured in groups:
        several = sum(m.outcomes.single for m in a.measured) > 1
        head = f"{a.evaluation.title}, {measured.group.name}" if several else a.evaluation.title
        columns += [Column("Acc@0.5 %", "percent", head), Column("mIoU %", "percent", head)]
    rows = mark_best(rows, order, range(2, len(columns)))
    return Table("overview", "All evaluations", tuple(columns), tuple(rows), (BEST_NOTE,))


def overview_tables(assessed: Sequence[Assessed]) -> tuple[Table, ...]:
    """Return the tables that several evaluations share: :func:`overview_table`, and the critical layers of all models
    (table 1); none for a single evaluation."""
    if len(assessed) < 2:
        return ()
    return tuple(t for t in (overview_table(assessed), layers_table([a.evaluation for a in assessed])) if t)


def tables_of_all(assessed: Sequence[Assessed]) -> tuple[Table, ...]:
    """Return the tables of :func:`overview_tables` and the tables of every evaluation.

    With several evaluations, the names of the tables begin with the number of their evaluation, and the titles end with
    its title.
    """
    if len(assessed) == 1:
        return tables_of(assessed[0])
    tables = list(overview_tables(assessed))
    for number, a in enumerate(assessed, 1):
        title = a.evaluation.title
        own = [t for t in tables_of(a) if t.name != LAYERS]
        tables += [replace(t, name=f"{number}-{t.name}", title=f"{t.title} ({title})") for t in own]
    return tuple(tables)


def _values(measured: GroupMetrics, run: int | None) -> list[Cell]:
    if run is None:
        return [Cell(None), Cell(None)]
    return [percent(measured.scores[run].accuracy), percent(measured.scores[run].miou)]
