"""All tables of an evaluation, and their files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from acs_core.evaluation import more_tables as more
from acs_core.evaluation import paper_tables as paper
from acs_core.evaluation.latex import to_latex
from acs_core.evaluation.metrics import GroupMetrics, measure
from acs_core.evaluation.records import CALIBRATED_ON, Evaluation
from acs_core.evaluation.statistics import DRAWS
from acs_core.evaluation.table import Table, to_csv, to_json

Maker = Callable[[GroupMetrics], Table | None]
SCORED = ("calibration", "abstention")  # ends of the names of tables about scores
MAIN: tuple[Maker, ...] = (paper.accuracy_table, paper.detection_table, more.average_precision_table)
REST: tuple[Maker, ...] = (
    more.significance_table,
    more.free_significance_table,
    more.consensus_significance_table,
    more.without_attention_table,
    more.calibration_table,
    more.abstention_table,
    more.size_table,
    more.category_table,
    more.latency_table,
    more.reasons_table,
)


@dataclass(frozen=True)
class Assessed:
    """An evaluation with the metrics of each of its groups."""

    evaluation: Evaluation
    measured: tuple[GroupMetrics, ...]


def assess(evaluation: Evaluation, draws: int = DRAWS, seed: int = 0) -> Assessed:
    """Compute the metrics of an evaluation; groups without questions or runs are left out.

    Args:
        evaluation: the evaluation.
        draws: number of bootstrap resamples, 1 to 1,000,000.
        seed: seed of the bootstrap, 0 to 2^32 - 1.
    """
    groups = [group for group in evaluation.groups if group.questions and group.runs]
    return Assessed(evaluation, tuple(measure(group, draws, seed) for group in groups))


def tables_of(assessed: Assessed) -> tuple[Table, ...]:
    """Return all tables that have data, main tables first; with several groups, titles and names include the group."""
    return main_tables(assessed) + further_tables(assessed)


def main_tables(assessed: Assessed) -> tuple[Table, ...]:
    """Return the tables of accuracy or precision of every group, of the regressor's error, and of the critical
    layers."""
    tables: list[Table] = []
    for measured in assessed.measured:
        tables += _named(measured, [make(measured) for make in MAIN], len(assessed.measured) > 1)
    others = paper.regression_table(assessed.evaluation), paper.layers_table([assessed.evaluation])
    return _noted(assessed, [*tables, *(table for table in others if table)])


def further_tables(assessed: Assessed) -> tuple[Table, ...]:
    """Return the tables that are not in :func:`main_tables`."""
    tables: list[Table] = []
    for measured in assessed.measured:
        found = [*paper.samples_tables(measured), *(make(measured) for make in REST)]
        tables += _named(measured, found, len(assessed.measured) > 1)
    return _noted(assessed, tables)


def write_tables(tables: Sequence[Table], folder: Path, latex: bool = False) -> list[Path]:
    """Write ``tables.json`` and one CSV file per table into ``folder``, which is created if missing; with ``latex``,
    also one LaTeX file per table.

    Returns:
        The paths of the files.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "tables.json"]
    files[0].write_text(json.dumps(to_json(tables), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    made: list[Path] = []
    for table in tables:
        # Names of groups may differ only in characters that file names do not keep.
        same = sum(file.stem.partition(".")[0] == table.name for file in files)
        stem = f"{table.name}{f'.{same + 1}' if same else ''}"
        files.append(folder / f"{stem}.csv")
        files[-1].write_text(to_csv(table), encoding="utf-8")
        if latex:
            made.append(folder / f"{stem}.tex")
            made[-1].write_text(to_latex(table), encoding="utf-8")
    return [*files, *made]


def _noted(assessed: Assessed, tables: Sequence[Table]) -> tuple[Table, ...]:
    """Return ``tables``; those with scores say if questions are about images that a calibration was fitted on."""
    said = assessed.evaluation.facts.get(CALIBRATED_ON)
    if not said:
        return tuple(tables)
    note = f"Images of the calibrations: {said}."
    return tuple(replace(t, notes=(*t.notes, note)) if t.name.endswith(SCORED) else t for t in tables)


def _named(measured: GroupMetrics, tables: Sequence[Table | None], several: bool) -> list[Table]:
    group = measured.group.name
    slug = re.sub(r"[^a-z0-9]+", "-", group.lower()).strip("-") or "group"
    if not several:
        return [table for table in tables if table]
    return [replace(t, name=f"{slug}-{t.name}", title=f"{t.title}: {group}") for t in tables if t]
