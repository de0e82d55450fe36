"""``acs-train report``: evaluation files as tables and as a page with charts and pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from training.console import bar, out_console
from training.errors import DataError

if TYPE_CHECKING:
    from acs_eval.tables import Assessed

SHOWN_CHANGES = 20  # questions that a comparison prints of each sort; the JSON file has all


def report(
    evaluations: Annotated[
        list[Path],
        typer.Argument(
            metavar="EVALUATION...", help="Files of `acs-train evaluate` or `acs-replay`, .json or .json.gz."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Write the page here: one HTML file that needs nothing else.")
    ] = None,
    tables: Annotated[Path | None, typer.Option(help="Folder for tables.json and one CSV a table.")] = None,
    title: Annotated[str, typer.Option(help="Of the page; default: the evaluation's.")] = "",
    pictures: Annotated[int, typer.Option(help="Questions shown with their picture, in all.", min=0, max=2000)] = 120,
    images: Annotated[
        Path | None, typer.Option(help="Folder that relative picture names start from; default: where each file lies.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Method to show beside greedy in the pictures; default: the best of ours.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Its sampling temperature; default: its best.")] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Compare two files of the same questions instead.")
    ] = False,
    draws: Annotated[int, typer.Option(help="Bootstrap samples behind each interval.", min=100)] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of these samples.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all tables into this JSON file.")] = None,
) -> None:
    """Print the tables of evaluations; write them as a page with charts and pictures, as JSON and as CSV."""
    from acs_eval.compare import compare as compare_evaluations
    from acs_eval.compare import comparison_tables
    from acs_eval.overview import tables_of_all
    from acs_eval.storage import load
    from acs_eval.table import print_tables, to_json
    from acs_eval.tables import assess, write_tables

    if temperature is not None and method is None:
        raise typer.BadParameter("needs --method", param_hint="--temperature")
    if compare and (len(evaluations) != 2 or out):
        raise typer.BadParameter("takes two evaluations, and makes no page", param_hint="--compare")
    if json_file and not json_file.parent.is_dir():
        raise typer.BadParameter(f"the folder {json_file.parent} does not exist", param_hint="--json")
    console = out_console()
    loaded = [load(file) for file in evaluations]
    if compare:
        comparisons = compare_evaluations(loaded[0], loaded[1], draws, seed)
        print_tables(comparison_tables(comparisons, SHOWN_CHANGES), console)
        found = comparison_tables(comparisons)
    else:
        assessed = [assess(evaluation, draws, seed) for evaluation in loaded]
        found = tables_of_all(assessed)
        print_tables(found, console)
    if tables:
        typer.echo(f"wrote {len(write_tables(found, tables))} files into {tables}")
    if json_file:
        json_file.write_text(json.dumps(to_json(found), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if out:
        _write_page(assessed, out, evaluations, images, title, pictures, method, temperature)
        typer.echo(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")


def _write_page(
    assessed: list[Assessed],
    out: Path,
    files: list[Path],
    images: Path | None,
    title: str,
    pictures: int,
    method: str | None,
    temperature: float | None,
) -> None:
    from acs_eval.page import write_page
    from acs_eval.pictures import reader_from

    def choose(a: Assessed, group: int) -> int | None:
        measured = a.measured[group]
        fitting = [
            r
            for r, run in enumerate(measured.group.runs)
            if run.method == method and temperature in (None, run.temperature)
        ]
        main = [r for r in fitting if r in measured.main_runs]
        return max(main or fitting, key=measured.merit, default=None)

    groups = [(a, g) for a in assessed for g in range(len(a.measured))]
    if method and all(choose(a, g) is None for a, g in groups):
        methods = dict.fromkeys(run.method for a, g in groups for run in a.measured[g].group.runs)
        tau = "" if temperature is None else f" at temperature {temperature:g}"
        raise DataError(f"no run of {method}{tau} in these evaluations; they have {', '.join(methods)}")
    folders = [images] if images else list(dict.fromkeys(file.parent for file in files))
    with bar() as move:
        write_page(
            assessed,
            out,
            reader_from(*folders),
            title,
            pictures,
            choose,
            lambda done, total: move("pictures", done, total),
        )
