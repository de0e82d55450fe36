"""The command: campaigns of one target or of all, a table, and a JSON file of what was found."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from acs_core.option_types import StrictTyper
from acs_core.output import checked_option, write_json
from acs_core.terminal import make_console
from fuzz.campaign import Record, run_campaign
from fuzz.worker import GUIDED, RANDOM, has_guide

app = StrictTyper(rich_markup_mode=None)
HEAVY_SHARE = 100  # a heavy target gets so much fewer cases
HELP = """Throw generated bad input at every way in, and tell what breaks.

Example: python -m fuzz --target parser --target converter --cases 100000

A case is a defect when it raises anything but the named errors of its target, takes seconds, makes the process grow by
hundreds of megabytes, or gives an answer that breaks a promise (a box outside the picture, a score above 1). Exit
status 1: there was one. `--case HEX` runs a case of a report again and shows its error."""


def show_table(records: list[Record], console: Console) -> None:
    """One line for each campaign, and the defects below."""
    table = Table("target", "engine", "cases", "seconds", "cases/s", "kept inputs", "peak MB", "defects")
    for r in records:
        kept = str(r.corpus) if r.corpus else ""
        table.add_row(
            *(r.target, r.engine, f"{r.cases:,}", f"{r.seconds:.0f}", f"{r.rate:.0f}", kept),
            *(str(r.peak_memory_mb), str(len(r.defects))),
        )
    console.print(table)
    for r in records:
        for defect in r.defects:
            console.print(f"{r.target}: {defect['where']}: {defect['what']}", markup=False)
            console.print(f"  again with --target {r.target} --case {defect['case']}", markup=False)


def _move(progress: Progress, task: TaskID, done: int) -> None:
    progress.update(task, completed=done)


@app.command(help=HELP)
def fuzz(
    target: Annotated[list[str] | None, typer.Option(help="What to test; may be repeated. Default: all.")] = None,
    cases: Annotated[int, typer.Option(help="Cases per target; slow targets get a hundredth.", min=1)] = 10_000,
    seed: Annotated[int, typer.Option(help="The same seed makes the same cases (random engine).", min=0)] = 0,
    engine: Annotated[
        str,
        typer.Option(help="guided (by coverage; needs atheris), random, or auto: guided where atheris is installed."),
    ] = "auto",
    json_file: Annotated[
        Path | None, typer.Option("--json", callback=checked_option, help="Write what was found into this file.")
    ] = None,
    case: Annotated[str | None, typer.Option(help="Run this one case (hex) of one target in this process.")] = None,
    show: Annotated[bool, typer.Option("--list", help="Name the targets.")] = False,
) -> None:
    """The command; see HELP."""
    from fuzz.draw import FuzzedData
    from fuzz.targets import NAMES, find

    console = make_console()
    if show:
        for name in NAMES:
            console.print(f"{name:12} {find(name).about}", markup=False, highlight=False)
        return
    names = target or list(NAMES)
    if unknown := sorted(set(names) - set(NAMES)):
        raise typer.BadParameter(f"no target {unknown[0]!r}: one of {', '.join(NAMES)}", param_hint="--target")
    if engine not in ("auto", GUIDED, RANDOM):
        raise typer.BadParameter(f"{engine!r} is none of auto, {GUIDED}, {RANDOM}", param_hint="--engine")
    if engine == GUIDED and not has_guide():
        raise typer.BadParameter("needs atheris: pip install -r requirements/fuzz.txt", param_hint="--engine")
    if case is not None:
        try:
            find(names[0]).run(FuzzedData(bytes.fromhex(case)))
        except find(names[0]).named as error:
            console.print(f"{type(error).__name__}: {error}", markup=False)
        return
    chosen = (GUIDED if has_guide() else RANDOM) if engine == "auto" else engine
    records = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=make_console(stderr=True)) as progress:
        for name in names:
            count = max(1, cases // HEAVY_SHARE) if find(name).heavy else cases
            task = progress.add_task(name, total=count)
            tell = partial(_move, progress, task)
            records.append(run_campaign(name, count, seed, chosen, tell))
            if json_file is not None:  # after each: a campaign of hours that is stopped has not been in vain
                write_json(json_file, {"targets": [r.to_dict() for r in records]}, "acs-fuzz")
            progress.update(task, completed=count)
    show_table(records, console)
    if any(r.defects for r in records):
        raise typer.Exit(1)
