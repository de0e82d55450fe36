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
    from collections.abc import Callable

    from acs_core.evaluation.cases import Case
    from acs_core.evaluation.tables import Assessed
    from acs_core.output_folder import OutputFolder

EXAMPLES = 12  # one sheet
FIGURES = ("*figure-*.pdf", "*figure-*.svg", "*figure-*.png")
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
    tables: Annotated[
        Path | None, typer.Option(help="Folder for tables.json, and a CSV and a LaTeX file per table.")
    ] = None
    figures: Annotated[
        Path | None,
        typer.Option(help="Folder for the paper's figures 1, 4, 5 and 10 to 15, as PDF, SVG and PNG at 300 dpi."),
    ] = None
    question: Annotated[
        tuple[str, ...],
        typer.Option(help="Question to show in the figures of examples, as in questions.json: '139:key'. Repeatable."),
    ] = ()
    examples: Annotated[
        int, typer.Option(help="Number of questions in the figures of examples, without --question.", min=0, max=600)
    ] = EXAMPLES
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
    if o.compare and (len(evaluations) != 2 or out or o.figures):
        raise typer.BadParameter("takes two evaluations, and makes no page or figures", param_hint="--compare")
    if o.question and o.figures is None:
        raise typer.BadParameter("needs --figures", param_hint="--question")
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        check_target(out, evaluations)
    check_distinct(out, o.json, o.tables, o.figures)
    console = out_console()
    loaded = [load(file) for file in evaluations]
    made, taken, drawn = ("tables.json", "*.csv", "*.tex", "coco/*.json"), None, None
    if o.tables:
        taken = OutputFolder(o.tables, o.full_command, inputs=evaluations, replaces=(*made, o.run_file))
    if o.figures:
        drawn = OutputFolder(o.figures, o.full_command, inputs=evaluations, replaces=FIGURES)
        drawn.check()
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
                    count = len(write_tables(found, staged, latex=True))
                    if not o.compare:
                        count += _write_coco(assessed, staged)
                typer.echo(f"wrote {count} files into {o.tables}")
        if o.json:
            write_json(o.json, {"tables": to_json(found)}, o.full_command)
        if drawn:
            _write_figures(assessed, drawn, o)
        if out:
            _write_page(assessed, out, o)
            typer.echo(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")


def _write_coco(assessed: list[Assessed], folder: Path) -> int:
    """Write the results for pycocotools, those of several evaluations into numbered folders; return their number."""
    from acs_core.evaluation.average_precision import write_coco_files

    count = 0
    for number, a in enumerate(assessed, 1):
        groups = [(m.group, m.main_runs) for m in a.measured]
        count += write_coco_files(a.evaluation.title, groups, folder, f"{number}-" if len(assessed) > 1 else "")
    return count


def _write_figures(assessed: list[Assessed], out: OutputFolder, options: ReportOptions) -> None:
    from acs_core.evaluation.cases import choose_cases, named_cases
    from acs_core.evaluation.page import reader_from
    from training.evaluation.paper_figures import draw_all

    asked = [m for a in assessed for m in a.measured]
    known = {question.key for m in asked for question in m.group.questions}
    if unknown := [key for key in options.question if key not in known]:
        raise DataError(f"no question {', '.join(unknown)} in these evaluations: questions.json beside each lists them")
    choose = _chooser(options)
    folders = [options.images] if options.images else list(dict.fromkeys(f.parent for f in options.evaluations))
    with out as folder, folder.stage(*FIGURES) as staged:
        for number, a in enumerate(assessed, 1):
            shown: list[Case] = []
            for g, m in enumerate(a.measured):
                ours = choose(a, g)
                if options.question:
                    shown += named_cases(m, options.question, ours)
                elif m.outcomes.single:
                    share = -(-options.examples // sum(m.outcomes.single for m in a.measured))
                    shown += choose_cases(m, min(share, options.examples - len(shown)), ours).shown
            prefix = f"{number}-" if len(assessed) > 1 else ""
            for line in draw_all(a, shown, reader_from(*folders), staged, prefix):
                typer.echo(f"{out.path / line}.pdf, .svg, .png" if ":" not in line else line)


def _chooser(options: ReportOptions) -> Callable[[Assessed, int], int | None]:
    """Return the function that chooses the run to show beside greedy, by --method and --temperature."""

    def choose(a: Assessed, group: int) -> int | None:
        measured = a.measured[group]
        fitting = [
            r
            for r, run in enumerate(measured.group.runs)
            if run.method == options.method and options.temperature in (None, run.temperature)
        ]
        main = [r for r in fitting if r in measured.main_runs]
        return max(main or fitting, key=measured.merit, default=None)

    return choose


def _write_page(assessed: list[Assessed], out: Path, options: ReportOptions) -> None:
    from acs_core.evaluation.page import reader_from, write_page

    method, temperature = options.method, options.temperature

    choose = _chooser(options)
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
