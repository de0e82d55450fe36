"""``python tools/results_page.py PAGE NAME=FOLDER ...``: fills the tables of a page with those of evaluations.

FOLDER is the ``--out`` of ``acs-train evaluate``. In the page, everything between ``<!-- begin NAME TABLE -->`` and
``<!-- end -->`` is replaced by the table TABLE of the evaluation NAME, by its name in ``tables.json``. With
``<!-- begin NAME TABLE without A, B -->`` columns are left out; ``<!-- begin NAME TABLE only M, N -->`` keeps the rows
whose first cell is one of these.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

BLOCK = re.compile(r"(<!-- begin (\S+) (\S+)((?: (?:without|only) [^>]*?)?) -->\n).*?(<!-- end -->)", re.S)

P_VALUE = re.compile(r"(^|: )p( \(|$)")  # names of columns of p-values


def main() -> None:
    """Fill the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("evaluations", nargs="+", metavar="NAME=FOLDER")
    options = parser.parse_args()
    tables: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for pair in options.evaluations:
        name, _, folder = pair.partition("=")
        for table in json.loads((Path(folder) / "tables.json").read_text()):
            tables[name, table["name"]] = table["rows"]
    text = options.page.read_text()
    options.page.write_text(filled(text, tables))


def filled(text: str, tables: dict[tuple[str, str], list[dict[str, Any]]]) -> str:
    """Return the page ``text`` with its tables.

    Raises:
        SystemExit: a table is not among those of the evaluations.
    """

    def one(found: re.Match[str]) -> str:
        start, name, table, change, end = found.groups()
        if (name, table) not in tables:
            has = ", ".join(t for n, t in tables if n == name) or "none"
            raise SystemExit(f"there is no table {table} of {name}; it has {has}")
        kind, _, listed = change.strip().partition(" ")
        names = [part.strip() for part in listed.split(",") if part.strip()]
        rows = tables[name, table]
        if kind == "only":
            rows = [row for row in rows if str(next(iter(row.values()))) in names]
        return start + markdown(rows, names if kind == "without" else ()) + end

    return BLOCK.sub(one, text)


def markdown(rows: list[dict[str, Any]], without: tuple[str, ...] | list[str] = ()) -> str:
    """Return the rows of a table as Markdown, without columns of these names and without empty ones."""
    columns = [c for c in rows[0] if c not in without and any(row.get(c) is not None for row in rows)]
    lines = [columns, ["---"] * len(columns), *([shown(row.get(c), c) for c in columns] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def shown(value: Any, column: str = "") -> str:
    """Return a cell of ``column``: percentages and points with one digit, other numbers below 2 with three, p-values
    below 0.001 as such; intervals in brackets."""
    if value is None:
        return "-"
    if isinstance(value, dict):
        return f"{shown(value['value'], column)} [{shown(value['low'], column)}, {shown(value['high'], column)}]"
    if isinstance(value, float):
        if P_VALUE.search(column):
            return "<0.001" if value < 0.001 else f"{value:.3f}"
        if abs(value) >= 2 or value == 0 or "%" in column or "points" in column:
            return f"{value:.1f}"
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return str(value)


if __name__ == "__main__":
    main()
