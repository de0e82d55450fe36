"""``acs-train report``: evaluation files as tables and as a page with charts and images."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from acs_core.evaluation.cases import PICTURES
from acs_core.evaluation.statistics import DRAWS
from acs_core.types import MAX_TEMPERATURE
from training.cli.config import Configuration, recorded
from training.cli.console import bar, out_console
from training.cli.options import Json
from training.errors import DataError

if TYPE_CHECKING:
    from acs_core.evaluation.tables import Assessed

SHOWN_CHANGES = 20  # questions of each kind that a comparison prints; the JSON file has all


@dataclass(frozen=True, kw_only=True)
class ReportOptions(Configuration):
    """Options of ``acs-train report``."""

    command = "report"
    evaluations: Annotated[
        tuple[Path, ...],
        typer.Argument(
            metavar="EVALUATION...", help="Files of `acs-train evaluate` or `acs-replay`, .json or .json.gz."
        ),
    ]
    out: Annotated[Path | None, typer.Option(help="Page to write: one self-contained HTML file.")] = None
    tables: Annotated[Path | None, typer.Option(help="Folder for tables.json and one CSV per table.")] = None
    title: Annotated[str | None, typer.Option(help="Title of the page; default: that of the evaluation.")] = None
    pictures: Annotated[int, typer.Option(help="Number of questions shown with their image.", min=0, max=2000)] = (
        PICTURES
    )
    images: Annotated[
        Path | None, typer.Option(help="Folder of relative image names; default: that of each evaluation file.")
    ] = None
    method: Annotated[
        str | None, typer.Option(help="Method to show beside greedy in the images; default: the best of ours.")
    ] = None
    temperature: Annotated[
        float | None,
        typer.Option(help="Sampling temperature of --method; default: its best.", min=0, max=MAX_TEMPERATURE),
    ] = None
    compare: Annotated[bool, typer.Option(help="Compare two files of the same questions instead.")] = False
    draws: Annotated[int, typer.Option(help="Bootstrap samples behind each interval.", min=100, max=1_000_000)] = DRAWS
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap samples.", min=0)] = 0
    json: Json = None


def report(options: ReportOptions) -> None:
    """Print the tables of evaluations, and write them as a page with charts and images, as JSON and as CSV."""
    from acs_core.evaluation.compare import compare as compare_evaluations
    from acs_core.evaluation.compare import comparison_tables
    from acs_core.evaluation.overview import tables_of_all
    from acs_core.evaluation.storage import load
    from acs_core.evaluation.table import print_tables, to_json
    from acs_core.evaluation.tables import assess, write_tables
    from acs_core.output import check_distinct, check_target, write_json
    from acs_core.output_folder import OutputFolder

    o, evaluations, out = options, options.evaluations, options.out
    if o.temperature is not None and o.method is None:
        raise typer.BadParameter("needs --method", param_hint="--temperature")
    if o.compare and (len(evaluations) != 2 or out):
        raise typer.BadParameter("takes two evaluations, and makes no page", param_hint="--compare")
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        check_target(out, evaluations)
    check_distinct(out, o.json, o.tables)
    console = out_console()
    loaded = [load(file) for file in evaluations]
    made, taken = ("tables.json", "*.csv"), None
    if o.tables:
        taken = OutputFolder(o.tables, o.full_command, inputs=evaluations, replaces=(*made, o.run_file))
    with recorded(o, taken, out, o.json):
        with taken or nullcontext() as folder:
            if o.compare:
                comparisons = compare_evaluations(loaded[0], loaded[1], o.draws, o.seed)
                print_tables(comparison_tables(comparisons, SHOWN_CHANGES), console)
                found = comparison_tables(comparisons)
            else:
                assessed = [assess(evaluation, o.draws, o.seed) for evaluation in loaded]
                found = tables_of_all(assessed)
                print_tables(found, console)
            if folder:
                with folder.stage(*made) as staged:
                    count = len(write_tables(found, staged))
                typer.echo(f"wrote {count} files into {o.tables}")
        if o.json:
            write_json(o.json, {"tables": to_json(found)}, o.full_command)
        if out:
            _write_page(assessed, out, o)
            typer.echo(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")


def _write_page(assessed: list[Assessed], out: Path, options: ReportOptions) -> None:
    from acs_core.evaluation.page import reader_from, write_page

    method, temperature = options.method, options.temperature

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
    folders = [options.images] if options.images else list(dict.fromkeys(f.parent for f in options.evaluations))
    with bar() as move:
        write_page(
            assessed,
            out,
            reader_from(*folders),
            options.title or "",
            options.pictures,
            choose,
            partial(move, "pictures"),
        )
