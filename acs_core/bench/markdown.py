"""Tables of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from acs_core.plain_text import one_line

MAX_CELL = 300  # characters of a table cell: responses can be long


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Return the lines of a table."""
    written = ["| " + " | ".join(cell(value) for value in row) + " |" for row in (columns, *rows)]
    return [written[0], "|" + "---|" * len(columns), *written[1:]]


def cell(value: object) -> str:
    """Return a value as text of a table cell: model output is data, and must be neither a cell's end nor HTML."""
    text = one_line(str(value), MAX_CELL)
    for mark, escaped in (("\\", "\\\\"), ("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("`", "\\`"), ("[", "\\[")):
        text = text.replace(mark, escaped)
    return text
