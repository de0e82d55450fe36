"""Consoles and error lines of all commands, safe against control characters in printed data."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table

from acs_core.plain_text import one_line, printable


class PlainConsole(Console):
    """A rich console that shows control characters as U+FFFD in all texts, tables and progress bars.

    Markup and emoji names are not interpreted: "[red]" is printed unchanged. Use ``style=``, :class:`rich.text.Text` or
    ``Text.from_markup`` with constant texts for styles.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of ``renderable``; rich's own control segments, which move the cursor, are kept."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text, "\n"), segment.style)


def make_console(stderr: bool = False, piped_width: int | None = None, soft_wrap: bool = False) -> PlainConsole:
    """Return a console.

    Args:
        stderr: whether it writes to the standard error instead of the standard output.
        piped_width: number of columns if it is not a terminal and the environment variable COLUMNS names none.
        soft_wrap: whether to leave the wrapping of long lines to the terminal.
    """
    console = PlainConsole(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=soft_wrap)
    named = os.environ.get("COLUMNS", "")
    if piped_width is not None and not console.is_terminal and not (named.isdecimal() and int(named) > 0):
        console.width = piped_width
    return console


def print_table(console: Console, table: Table) -> None:
    """Print ``table`` without cutting or wrapping a cell: if it is too wide, in parts below one another, which repeat
    the first column, and a note that says so."""
    sizes = [max(map(cell_len, map(str, (column.header, *column.cells)))) for column in table.columns]
    parts = [[0]]
    for index in range(1, len(sizes)):
        if len(parts[-1]) > 1 and sum(sizes[i] + 2 for i in (*parts[-1], index)) > console.width + 1:
            parts.append([0])
        parts[-1].append(index)
    for part in parts:
        shown = Table(box=table.box, header_style=table.header_style, pad_edge=False)
        for i in part:
            column = table.columns[i]
            shown.add_column(column.header, justify=column.justify, no_wrap=True, width=sizes[i])
        for row in zip(*(table.columns[i].cells for i in part), strict=True):
            shown.add_row(*row)
        console.print(shown)
    if len(parts) > 1:
        console.print(f"(in {len(parts)} parts: the table does not fit into {console.width} characters)", style="dim")


def print_error(command: str, problem: object) -> None:
    """Print ``command: problem`` on one line of the standard error."""
    print(f"{command}: {one_line(str(problem))}", file=sys.stderr)
