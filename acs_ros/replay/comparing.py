"""``--compare``: two evaluations of the same bag, side by side."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from acs_eval.compare import compare, comparison_tables
from acs_eval.storage import load
from acs_eval.table import print_tables, to_json

SHOWN = 10  # questions that changed, of each sort


def compare_files(first: Path, second: Path, console: Console, json_file: Path | None) -> int:
    """Print what changed from ``first`` to ``second`` on the questions both were asked; the exit code. A folder stands
    for the ``evaluation.json`` in it.

    Raises:
        EvaluationError: a file cannot be read.
        ComparisonError: the two have nothing in common.
        OSError: ``json_file`` cannot be written.
    """
    files = [file / "evaluation.json" if file.is_dir() else file for file in (first, second)]
    found = compare(load(files[0]), load(files[1]))
    print_tables(comparison_tables(found, SHOWN), console)
    if json_file is not None:
        tables = to_json(comparison_tables(found))
        json_file.write_text(json.dumps({"tables": tables}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0
