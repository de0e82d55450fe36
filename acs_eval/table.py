"""A table with its numbers, shown alike on a terminal, on a page, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.style import Style
from rich.table import Table as RichTable
from rich.text import Text

DIGITS = {"percent": 1, "points": 1, "ratio": 3, "ms": 1, "p": 3, "count": 0, "tau": 1}
MOST_TEXT = 24  # characters of a text that are never broken
WIDEST = 10_000  # characters: wider than any table
SIGNED = ("points",)
STYLES = {"ours": Style(color="cyan"), "bound": Style(dim=True)}


@dataclass(frozen=True)
class Column:
    """``kind`` says how numbers are written: "percent", "points" (with their sign), "ratio", "ms", "p", "count", "tau",
    or "text". Columns of one ``group`` stand under its name."""

    title: str
    kind: str = "text"
    group: str = ""

    @property
    def name(self) -> str:
        """Title and group, as one header line names it."""
        return f"{self.group}: {self.title}" if self.group else self.title


@dataclass(frozen=True)
class Cell:
    """A ``value``, None or NaN where there is none, and the ends of its interval if it has one. ``best`` of its column;
    ``best_free``: the best of those that nothing was fitted for."""

    value: str | float | None
    low: float | None = None
    high: float | None = None
    best: bool = False
    best_free: bool = False


@dataclass(frozen=True)
class Row:
    """``kind`` of the method it speaks of: "ours", "baseline", "bound", or ""."""

    cells: tuple[Cell, ...]
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """``name`` is short, for files; ``notes`` are sentences below."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @property
    def head(self) -> list[tuple[str, int]]:
        """The columns' groups from left to right, and how many columns each has; empty where no column has one."""
        if not any(column.group for column in self.columns):
            return []
        return [(name, len(list(columns))) for name, columns in groupby(self.columns, key=lambda column: column.group)]


def written(cell: Cell, column: Column) -> str:
    """The value as a reader sees it, without its interval; a dash where there is none."""
    value = cell.value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, str):
        return value
    digits = DIGITS.get(column.kind, 3)
    if column.kind == "p" and value < 0.001:
        return "<0.001"
    return f"{value:+.{digits}f}" if column.kind in SIGNED else f"{value:,.{digits}f}"


def interval(cell: Cell, column: Column) -> str:
    """The interval's ends, as "61.4, 65.4"; empty without one."""
    if cell.low is None or cell.high is None or not (math.isfinite(cell.low) and math.isfinite(cell.high)):
        return ""
    return f"{written(Cell(cell.low), column)}, {written(Cell(cell.high), column)}"


def print_tables(tables: Iterable[Table], console: Console) -> None:
    """One after the other; the best of a column has a *, the best training-free one a +. A table that is too wide with
    its intervals goes without them."""
    for table in tables:
        shown = _rich(table, True)
        if Measurement.get(console, console.options.update(width=WIDEST), shown).minimum > console.width:
            shown = _rich(table, False)
        console.print(Text(table.title, style="bold"))
        console.print(shown)
        for note in table.notes:
            console.print(Text(note, style="dim"))
        console.print()


def to_csv(table: Table) -> str:
    """Header and rows; a column with intervals is followed by its low and high ends."""
    wide = [any(interval(row.cells[i], c) for row in table.rows) for i, c in enumerate(table.columns)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    ends = [
        [c.name, f"{c.name} low", f"{c.name} high"] if w else [c.name] for c, w in zip(table.columns, wide, strict=True)
    ]
    writer.writerow([name for names in ends for name in names])
    for row in table.rows:
        values = [[c.value, c.low, c.high] if w else [c.value] for c, w in zip(row.cells, wide, strict=True)]
        writer.writerow(["" if plain(v) is None else plain(v) for several in values for v in several])
    return out.getvalue()


def to_json(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """Tables as JSON values, each row an object by column; values with an interval are {"value", "low", "high"}."""
    return [
        {
            "name": table.name,
            "title": table.title,
            "notes": list(table.notes),
            "rows": [
                {c.name: _value(cell) for c, cell in zip(table.columns, row.cells, strict=True)} for row in table.rows
            ],
        }
        for table in tables
    ]


def plain(value: str | float | None) -> str | float | None:
    """A number without digits that mean nothing; None for NaN."""
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def _value(cell: Cell) -> Any:
    if cell.low is None:
        return plain(cell.value)
    return {"value": plain(cell.value), "low": plain(cell.low), "high": plain(cell.high)}


def _rich(table: Table, ends: bool) -> RichTable:
    rows = [
        [_text(cell, column, ends) for cell, column in zip(row.cells, table.columns, strict=True)] for row in table.rows
    ]
    shown = RichTable(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for i, column in enumerate(table.columns):
        head = Text(f"{column.group} {column.title}" if column.group else column.title)
        text = column.kind == "text"
        # A number is never broken, nor a short name; headings and long texts may be.
        widest = max((cells[i].cell_len for cells in rows), default=1)
        width = min(widest, MOST_TEXT) if text else widest
        shown.add_column(head, justify="left" if text else "right", overflow="fold", min_width=width)
    for cells, row in zip(rows, table.rows, strict=True):
        shown.add_row(*cells, style=STYLES.get(row.kind))
    return shown


def _text(cell: Cell, column: Column, ends: bool) -> Text:
    style = Style(bold=cell.best or None, underline=cell.best_free or None)
    # Phrases and reasons come from data: whatever would steer the terminal is shown as a sign instead.
    plain_text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in written(cell, column))
    text = Text(plain_text, style=style)
    if ends and interval(cell, column):
        text.append(f" [{interval(cell, column)}]", Style(dim=True, bold=False, underline=False))
    if column.kind in ("percent", "ratio"):  # marks have places of their own, so that digits stay in line
        text.append("*" if cell.best else " ").append("+" if cell.best_free else " ")
    return text
