"""Helpers shared by the tables of runs: row order, first cells, and marks of the best values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from acs_core.evaluation.metrics import GroupMetrics
from acs_core.evaluation.records import Run
from acs_core.evaluation.statistics import Estimate
from acs_core.evaluation.table import Cell, Column, TableRow

METHOD, TAU = Column("Method"), Column("τ", "tau")
INTERVAL_NOTE = "In brackets or in small digits: 95 % bootstrap interval over pictures."
BEST_NOTE = "Best of its column *, best training-free +; bounds (oracle and random choice) do not compete."


def percent(estimate: Estimate | None) -> Cell:
    """Return a cell with a share and its interval in percent."""
    if estimate is None:
        return Cell(None)
    return Cell(100 * estimate.value, 100 * estimate.low, 100 * estimate.high)


def in_order(runs: Sequence[Run], which: Sequence[int]) -> list[int]:
    """Return the run indices ``which`` in table order: methods as they first appear, each from its highest temperature
    down."""
    first = {run.method: r for r, run in reversed(list(enumerate(runs)))}
    return sorted(which, key=lambda r: (first[runs[r].method], -(runs[r].temperature or math.inf), runs[r].samples))


def named(run: Run) -> tuple[Cell, Cell]:
    """Return the first two cells of a run's row: method and temperature."""
    return Cell(run.method), Cell(run.temperature)


def label(run: Run) -> str:
    """Return the label of a run, such as "acs-free τ 0.5"."""
    return run.method if run.temperature is None else f"{run.method} τ {run.temperature:g}"


def mark_best(
    rows: Sequence[TableRow], runs: Sequence[Run], columns: Sequence[int], highest: bool = True
) -> list[TableRow]:
    """Return the rows with the best cells of each of ``columns`` marked, ties included.

    Args:
        rows: one row per run.
        runs: the runs; those of kind "bound" do not compete.
        columns: indices of the columns.
        highest: whether the highest value is the best.
    """
    marked = [list(row.cells) for row in rows]
    sign = 1 if highest else -1
    for c in columns:
        for field, learned_too in (("best", True), ("best_free", False)):
            competing = {
                r: sign * value
                for r, (row, run) in enumerate(zip(rows, runs, strict=True))
                if run.kind != "bound"
                and (learned_too or not run.learned)
                and (value := number_in(row.cells[c])) is not None
            }
            top = max(competing.values(), default=None)
            for r, value in competing.items():
                if value == top and len(set(competing.values())) > 1:
                    marked[r][c] = replace(marked[r][c], **{field: True})
    return [TableRow(tuple(cells), row.kind) for cells, row in zip(marked, rows, strict=True)]


def number_in(cell: Cell) -> float | None:
    """Return the number in a cell; None if it has no finite one."""
    return cell.value if isinstance(cell.value, (int, float)) and math.isfinite(cell.value) else None


def counted(count: int, noun: str) -> str:
    """Return for example "1 question", "4 questions"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def facts(measured: GroupMetrics) -> str:
    """Return a sentence with the number of questions, images and samples behind a table."""
    o = measured.outcomes
    pictures = int(o.image.max(initial=-1)) + 1
    text = f"{counted(int(o.shown.sum()), 'question')} about {counted(pictures, 'picture')}"
    absent = int((~o.shown).sum())
    text += f", and {absent} about absent objects" if absent else ""
    text += ", too few to compare methods" if measured.few else ""
    return text + (f"; N = {measured.main_samples} sampled responses." if measured.main_samples else ".")
