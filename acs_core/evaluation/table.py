"""Tables with numbers, and their output on a terminal, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from itertools import groupby
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.style import Style
from rich.table import Table as RichTable
from rich.text import Text

from acs_core.plain_text import printable

DIGITS = {"percent": 1, "points": 1, "ratio": 3, "iou": 3, "ms": 1, "p": 3, "count": 0, "tau": 1}
IN_BRACKETS = "In brackets"  # beginning of a note about intervals
MOST_TEXT = 24  # minimum column width of a longer text, in characters
SIGNED = ("points",)
# Characters that begin a formula in spreadsheets, with the full-width forms of East Asian keyboards.
FORMULA = ("=", "+", "-", "@", "\t", "\n", "＝", "＋", "－", "＠")
STYLES = {"ours": Style(color="cyan"), "bound": Style(dim=True)}
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: heading.
        kind: number format: "percent", "points" (signed), "ratio", "iou" (cut, not rounded), "ms", "p", "count",
            "tau", or "text".
        group: heading shared with the neighbouring columns of the same group.
        spare: place in the order in which columns are left out where a table is too wide, from 1; 0 is always shown.
    """

    title: str
    kind: str = "text"
    group: str = ""
    spare: int = 0

    @property
    def name(self) -> str:
        """Group and title in one line."""
        return f"{self.group}: {self.title}" if self.group else self.title


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        value: text or number; None or NaN if empty.
        low, high: ends of the interval; None without one.
        best: whether it is the best of its column.
        best_free: whether it is the best of the training-free methods.
    """

    value: str | float | None
    low: float | None = None
    high: float | None = None
    best: bool = False
    best_free: bool = False


@dataclass(frozen=True)
class TableRow:
    """Cells of a row and the kind of its method: "ours", "baseline", "bound", or ""."""

    cells: tuple[Cell, ...]
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: short name, for file names.
        title: heading.
        columns: the columns.
        rows: the rows.
        notes: sentences below the table; one that begins with ``IN_BRACKETS`` is printed only with the intervals.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...] = ()

    @property
    def head(self) -> list[tuple[str, int]]:
        """Groups of the columns from left to right, with their number of columns; empty if no column has a group."""
        if not any(column.group for column in self.columns):
            return []
        return [(name, len(list(columns))) for name, columns in groupby(self.columns, key=lambda column: column.group)]


def cut(iou: float, digits: int = 2) -> str:
    """Return an IoU with ``digits`` decimals, cut and not rounded: 0.4996 is a miss, and must not read 0.50."""
    return str(Decimal(repr(float(iou))).quantize(Decimal(1).scaleb(-digits), ROUND_DOWN))


def written(cell: Cell, column: Column) -> str:
    """Return the formatted value of a cell without its interval; a dash if it is empty."""
    value = cell.value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, str):
        return value
    digits = DIGITS.get(column.kind, 3)
    if column.kind == "iou":
        return cut(value, digits)
    if column.kind == "p" and value < 0.001:
        return "<0.001"
    return f"{value:+.{digits}f}" if column.kind in SIGNED else f"{value:,.{digits}f}"


def interval(cell: Cell, column: Column) -> str:
    """Return the formatted interval of a cell, such as "61.4, 65.4"; empty without one."""
    if cell.low is None or cell.high is None or not (math.isfinite(cell.low) and math.isfinite(cell.high)):
        return ""
    return f"{written(Cell(cell.low), column)}, {written(Cell(cell.high), column)}"


def print_tables(tables: Iterable[Table], console: Console) -> None:
    """Print tables to ``console``.

    The best value of a column is marked with *, the best training-free one with +. No number is cut: a table that is
    too wide is printed without its intervals; if it is still too wide, without its spare columns; and if that is not
    enough, with all columns in parts one below the other, each with the first column. A note says so.
    """
    for table in tables:
        room, notes = console.width, list(table.notes)
        every = _Columns(table, range(len(table.columns)), True)
        parts = [every]
        if every.least_width > room:
            cells = [cell for row in table.rows for cell in zip(row.cells, table.columns, strict=True)]
            if any(interval(*cell) for cell in cells):
                notes = [note for note in notes if not note.startswith(IN_BRACKETS)]
                notes.append(f"The intervals do not fit into {room} characters, and are left out.")
            fitting, left_out = _without_spare(table, room)
            parts = [fitting] if fitting else _split(table, room)
            if left_out:
                notes.append(f"Columns that do not fit into {room} characters, and are left out: {left_out}.")
            if len(parts) > 1:
                notes.append(f"The table does not fit into {room} characters, and is printed in {len(parts)} parts.")
        console.print(Text(table.title, style="bold"))
        for part in parts:
            console.print(part.shown(room))
        for note in notes:
            console.print(Text(note, style="dim"))
        console.print()


def _without_spare(table: Table, room: int) -> tuple[_Columns | None, str]:
    """Return the columns without intervals and with as many spare columns as fit into ``room`` characters, and the
    names of those left out; None and "" if they do not fit without any."""
    order = sorted((c.spare, i) for i, c in enumerate(table.columns) if c.spare)
    for count in range(len(order) + 1):
        left_out = sorted(i for _, i in order[:count])
        fitting = _Columns(table, [i for i in range(len(table.columns)) if i not in left_out], False)
        if fitting.least_width <= room:
            return fitting, ", ".join(table.columns[i].name for i in left_out)
    return None, ""


def _split(table: Table, room: int) -> list[_Columns]:
    """Return the parts of a table without intervals for ``room`` characters. The first column, which names the rows, is
    in each of them."""
    parts = [[0]]
    for index in range(1, len(table.columns)):
        if len(parts[-1]) > 1 and _Columns(table, [*parts[-1], index], False).least_width > room:
            parts.append([0])
        parts[-1].append(index)
    return [_Columns(table, part, False) for part in parts]


def to_csv(table: Table) -> str:
    """Return the table as CSV; a column with intervals is followed by columns with their low and high ends.

    Texts that a spreadsheet would interpret as a formula are prefixed with an apostrophe; numbers are not.
    """
    wide = [any(interval(row.cells[i], c) for row in table.rows) for i, c in enumerate(table.columns)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    ends = [
        [c.name, f"{c.name} low", f"{c.name} high"] if w else [c.name] for c, w in zip(table.columns, wide, strict=True)
    ]
    writer.writerow([_no_formula(name) for names in ends for name in names])
    for row in table.rows:
        values = [[c.value, c.low, c.high] if w else [c.value] for c, w in zip(row.cells, wide, strict=True)]
        writer.writerow([_no_formula(plain(v)) for several in values for v in several])
    return out.getvalue()


def to_json(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """Return tables as JSON values: rows are objects by column, values with an interval are {"value", "low",
    "high"}."""
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
    """Return a number rounded to six digits; None for NaN and infinities."""
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def _no_formula(value: str | float | None) -> str | float:
    if value is None:
        return ""
    if not isinstance(value, str):
        return value
    text = printable(value, "\t\n")  # csv quotes no carriage return, which would begin a row
    is_formula = text.lstrip(" ").startswith(FORMULA) and not NUMBER.fullmatch(text)
    return f"'{text}" if is_formula else text


def _value(cell: Cell) -> Any:
    if cell.low is None:
        return plain(cell.value)
    return {"value": plain(cell.value), "low": plain(cell.low), "high": plain(cell.high)}


class _Columns:
    """Some columns of a table, laid out for a terminal: rich alone would cut numbers where the room is tight.

    Args:
        table: the table.
        indices: the columns.
        ends: whether to show the ends of intervals.
    """

    def __init__(self, table: Table, indices: Sequence[int], ends: bool) -> None:
        self._columns = [table.columns[i] for i in indices]
        self._rows = [[_text(row.cells[i], table.columns[i], ends) for i in indices] for row in table.rows]
        self._kinds = [row.kind for row in table.rows]
        self._heads = [Text(f"{c.group} {c.title}" if c.group else c.title) for c in self._columns]
        self._least, self._most = [], []
        for i, (column, head) in enumerate(zip(self._columns, self._heads, strict=True)):
            # Numbers, short texts and words of headings are never wrapped; headings and long texts may be.
            widest = max((cells[i].cell_len for cells in self._rows), default=1)
            words = max(cell_len(word) for word in head.plain.split(" "))
            self._least.append(max(words, min(widest, MOST_TEXT) if column.kind == "text" else widest))
            self._most.append(max(widest, head.cell_len))

    @property
    def least_width(self) -> int:
        """Number of characters of the narrowest line that cuts nothing."""
        return sum(self._least) + 3 * len(self._least) - 1  # rich puts 3 characters between columns, 1 at either edge

    def shown(self, room: int) -> RichTable:
        """Return the columns, within ``room`` characters; texts get what is left before headings do."""
        widths, spare = list(self._least), room - self.least_width
        for i in sorted(range(len(widths)), key=lambda i: self._columns[i].kind != "text"):
            more = min(max(0, spare), self._most[i] - widths[i])
            widths[i], spare = widths[i] + more, spare - more
        shown = RichTable(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
        for column, head, width in zip(self._columns, self._heads, widths, strict=True):
            justify: Literal["left", "right"] = "left" if column.kind == "text" else "right"
            shown.add_column(head, justify=justify, overflow="fold", width=width)
        for cells, kind in zip(self._rows, self._kinds, strict=True):
            shown.add_row(*cells, style=STYLES.get(kind))
        return shown


def _text(cell: Cell, column: Column, ends: bool) -> Text:
    style = Style(bold=cell.best or None, underline=cell.best_free or None)
    # Phrases and reasons are data: control characters are replaced before widths are measured.
    text = Text(printable(written(cell, column)), style=style)
    if ends and interval(cell, column):
        text.append(f" [{interval(cell, column)}]", Style(dim=True, bold=False, underline=False))
    if column.kind in ("percent", "ratio"):  # the marks have a fixed width, so that digits stay aligned
        text.append("*" if cell.best else " ").append("+" if cell.best_free else " ")
    return text
