"""Tables as LaTeX: a ``table`` environment with ``booktabs`` rules, to be included with ``\\input``."""

from __future__ import annotations

import re

from acs_core.evaluation.table import Cell, Column, Table, interval, written
from acs_core.plain_text import printable

HEAD = "% Needs \\usepackage{booktabs,graphicx}\n"
MOST_WITH_ENDS = 7  # columns of a table that shows intervals; the CSV files of wider ones have them
# Shrinks a table that is wider than the text, and no other.
SHRUNK = "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%"
# Characters with a meaning in LaTeX, and others that pdflatex knows only as commands.
_COMMANDS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "τ": r"$\tau$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "×": r"$\times$",
    "–": "--",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
}


def to_latex(table: Table) -> str:
    """Return the table as LaTeX text that needs the packages booktabs and graphicx.

    The best cells of a column are bold, the best training-free ones underlined, as in table 2 of the paper; intervals
    are set small, in tables of few columns. Notes stand below the rows.
    """
    kinds = "".join("l" if column.kind == "text" else "r" for column in table.columns)
    lines = ["\\begin{table}", "\\centering", f"\\caption{{{escaped(table.title)}}}", f"\\label{{tab:{_slug(table)}}}"]
    lines += [SHRUNK, f"\\begin{{tabular}}{{{kinds}}}", "\\toprule"]
    if table.head:
        groups, rules, first = [], [], 1
        for name, span in table.head:
            groups.append(f"\\multicolumn{{{span}}}{{c}}{{{escaped(name)}}}")
            rules += [f"\\cmidrule(lr){{{first}-{first + span - 1}}}"] if name else []
            first += span
        lines += [_row(groups), " ".join(rules)]
    lines += [_row([escaped(column.title) for column in table.columns]), "\\midrule"]
    ends = len(table.columns) <= MOST_WITH_ENDS
    lines += [_row([_cell(c, k, ends) for c, k in zip(row.cells, table.columns, strict=True)]) for row in table.rows]
    lines += ["\\bottomrule", "\\end{tabular}}"]
    if table.notes:
        # \vspace after \par: a paragraph of its own, as wide as the text
        lines += ["\\par\\vspace{2pt}", f"{{\\footnotesize {escaped(' '.join(table.notes))}\\par}}"]
    return HEAD + "\n".join([*lines, "\\end{table}"]) + "\n"


def escaped(text: str) -> str:
    """Return ``text`` with all characters that LaTeX would interpret as commands; control characters are replaced."""
    return "".join(_COMMANDS.get(sign, sign) for sign in printable(text))


def _cell(cell: Cell, column: Column, ends: bool) -> str:
    text = escaped(written(cell, column))
    if cell.best:
        text = f"\\textbf{{{text}}}"
    if cell.best_free:
        text = f"\\underline{{{text}}}"
    between = interval(cell, column) if ends else ""
    return f"{text} {{\\tiny [{escaped(between)}]}}" if between else text


def _row(cells: list[str]) -> str:
    # A bracket at the start of a row would be read as an option of the \\ before it.
    first, *others = cells
    return " & ".join(["{}" + first if first.startswith(("[", "*")) else first, *others]) + r" \\"


def _slug(table: Table) -> str:
    return re.sub(r"[^a-z0-9-]+", "-", table.name.lower())
