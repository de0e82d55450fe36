"""What tables of runs have in common: the order of the rows, their first cells, and the marks of the best ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from acs_eval.bootstrap import Estimate
from acs_eval.metrics import Measured
from acs_eval.records import Run
from acs_eval.table import Cell, Column, Row

METHOD, TAU = Column("Method"), Column("τ", "tau")
INTERVAL_NOTE = "In brackets or in small digits: 95 % bootstrap interval over pictures."
BEST_NOTE = "Best of its column *, best training-free +; bounds (what no method can know) do not compete."


def percent(estimate: Estimate | None) -> Cell:
    """A share and its interval in percent."""
    if estimate is None:
        return Cell(None)
    return Cell(100 * estimate.value, 100 * estimate.low, 100 * estimate.high)


def in_order(runs: Sequence[Run], which: Sequence[int]) -> list[int]:
    """The runs ``which``, methods in the order they come in, each from its highest temperature down."""
    first = {run.method: r for r, run in reversed(list(enumerate(runs)))}
    return sorted(which, key=lambda r: (first[runs[r].method], -(runs[r].temperature or math.inf), runs[r].samples))


def named(run: Run) -> tuple[Cell, Cell]:
    """The first two cells of a run's row."""
    return Cell(run.method), Cell(run.temperature)


def label(run: Run) -> str:
    """A run in one piece, as "acs-free τ 0.5"."""
    return run.method if run.temperature is None else f"{run.method} τ {run.temperature:g}"


def mark_best(rows: Sequence[Row], runs: Sequence[Run], columns: Sequence[int], highest: bool = True) -> list[Row]:
    """The rows of ``runs`` with the best cell in each of ``columns`` marked, equal ones all."""
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
    return [Row(tuple(cells), row.kind) for cells, row in zip(marked, rows, strict=True)]


def number_in(cell: Cell) -> float | None:
    """The cell's number; None where it holds none that can be compared."""
    return cell.value if isinstance(cell.value, (int, float)) and math.isfinite(cell.value) else None


def facts(measured: Measured) -> str:
    """How many questions and pictures the numbers come from."""
    o = measured.outcomes
    pictures = int(o.image.max(initial=-1)) + 1
    text = f"{int(o.shown.sum())} questions about {pictures} pictures"
    absent = int((~o.shown).sum())
    text += f", and {absent} about what is not there" if absent else ""
    return text + (f"; N = {measured.main_samples} sampled responses." if measured.main_samples else ".")
