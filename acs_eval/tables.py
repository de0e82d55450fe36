"""All tables of an evaluation, and their files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from acs_eval import more_tables as more
from acs_eval import paper_tables as paper
from acs_eval.bootstrap import DRAWS
from acs_eval.metrics import Measured, measure
from acs_eval.records import Evaluation
from acs_eval.table import Table, to_csv, to_json

Maker = Callable[[Measured], Table | None]
MAIN: tuple[Maker, ...] = (paper.accuracy_table, paper.detection_table)
REST: tuple[Maker, ...] = (
    more.significance_table,
    more.calibration_table,
    more.abstention_table,
    more.size_table,
    more.category_table,
    more.latency_table,
    more.reasons_table,
)


@dataclass(frozen=True)
class Assessed:
    """An evaluation with the numbers of each of its groups."""

    evaluation: Evaluation
    measured: tuple[Measured, ...]


def assess(evaluation: Evaluation, draws: int = DRAWS, seed: int = 0) -> Assessed:
    """Compares all answers with the truth; ``draws`` and ``seed`` belong to the bootstrap. Groups without questions or
    without runs are left out."""
    groups = [group for group in evaluation.groups if group.questions and group.runs]
    return Assessed(evaluation, tuple(measure(group, draws, seed) for group in groups))


def tables_of(assessed: Assessed) -> tuple[Table, ...]:
    """Every table that has data, the main ones first. Where there are several groups, titles and names say which one
    it is."""
    return main_tables(assessed) + further_tables(assessed)


def main_tables(assessed: Assessed) -> tuple[Table, ...]:
    """Accuracy or precision of every group, and the regressor's error."""
    tables: list[Table] = []
    for measured in assessed.measured:
        tables += _named(measured, [make(measured) for make in MAIN], len(assessed.measured) > 1)
    regression = paper.regression_table(assessed.evaluation)
    return (*tables, regression) if regression else tuple(tables)


def further_tables(assessed: Assessed) -> tuple[Table, ...]:
    """What is not in :func:`main_tables`."""
    tables: list[Table] = []
    for measured in assessed.measured:
        found = [*paper.samples_tables(measured), *(make(measured) for make in REST)]
        tables += _named(measured, found, len(assessed.measured) > 1)
    return tuple(tables)


def write_tables(tables: Sequence[Table], folder: Path) -> list[Path]:
    """Writes ``tables.json`` and one CSV a table into ``folder``, made if missing; the files' paths.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "tables.json"]
    files[0].write_text(json.dumps(to_json(tables), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for table in tables:
        # Groups may have names that differ in signs alone, which files do not have.
        same = sum(file.stem.partition(".")[0] == table.name for file in files)
        files.append(folder / f"{table.name}{f'.{same + 1}' if same else ''}.csv")
        files[-1].write_text(to_csv(table), encoding="utf-8")
    return files


def _named(measured: Measured, tables: Sequence[Table | None], several: bool) -> list[Table]:
    group = measured.group.name
    slug = re.sub(r"[^a-z0-9]+", "-", group.lower()).strip("-") or "group"
    if not several:
        return [table for table in tables if table]
    return [replace(t, name=f"{slug}-{t.name}", title=f"{t.title}: {group}") for t in tables if t]
