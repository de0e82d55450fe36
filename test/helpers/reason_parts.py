"""Tables of reasons: which texts the source of a module can give, and whether a table has a row for each."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
ANY = "…"  # in the expected text of a row: what differs from run to run
MIN_WORDS = 2  # texts with fewer are names and formats


def told(expected: str, text: str) -> bool:
    """Whether ``text`` is the ``expected`` one, in which ANY stands for anything."""
    return re.fullmatch(".*".join(map(re.escape, expected.split(ANY))), text, re.DOTALL) is not None


def texts_of(file: str) -> Iterator[str]:
    """Every text of two or more words that the source of a file can give: string literals that are not docstrings,
    with ANY for the values that are put in."""
    tree = ast.parse((ROOT / file).read_text())
    left_out = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            left_out |= {id(part) for part in node.values}
    for node in ast.walk(tree):
        if id(node) in left_out:
            continue
        if isinstance(node, ast.JoinedStr):
            text = "".join(v.value if isinstance(v, ast.Constant) else ANY for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            continue
        words = [word for word in text.replace(ANY, " ").split() if word.strip(":;,.()'").isalpha()]
        if len(words) >= MIN_WORDS:
            yield text


def without_row(files: Iterable[str], expected: Iterable[str], others: Iterable[str]) -> list[str]:
    """The texts of the source ``files`` that are in no ``expected`` text of a table, nor among the ``others``, which
    are no reasons."""
    rows, known = list(expected), set(others)
    return [
        f"{file}: {text}"
        for file in files
        for text in texts_of(file)
        if text not in known and not any(_is_in(text, row) for row in rows)
    ]


def unknown(files: Iterable[str], others: Iterable[str]) -> list[str]:
    """The ``others`` that no source file has: they were changed, or their text became a reason."""
    found = {text for file in files for text in texts_of(file)}
    return [text for text in others if text not in found]


def _is_in(text: str, row: str) -> bool:
    return re.search(".*".join(map(re.escape, text.split(ANY))), row, re.DOTALL) is not None
