"""``acs-soak``: the node for hours under every load and fault in turn, and whether it kept its word."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from acs_bench.machine import Machine
from acs_core.oserrors import os_problem
from acs_ros.files import shipped_file
from acs_ros.node_client import NodeTrouble
from acs_stress.report import ReportError, draw, read_journal, summarise, table_of, write_summary

PARAMS = "config/tiny_internvl.yaml"
HELP = """Run the grounding node under floods, faults, transitions and clock jumps in turn, and hold every answer
against what was asked.

Example: acs-soak --minutes 120 --out soak_output

Everything that is seen goes into OUT/soak.jsonl line by line; `acs-soak --report OUT` makes the report of it again,
also of a run that was stopped. Exit status 1: a promise was broken, or something grew."""
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(help=HELP)
def soak_command(
    minutes: Annotated[float, typer.Option(help="How long; at least one round of all episodes is run.", min=0.0)] = 120,
    out: Annotated[Path, typer.Option(help="Folder for journal, logs and report.")] = Path("soak_output"),
    model: Annotated[str | None, typer.Option(help="Another model than that of the parameters.")] = None,
    params: Annotated[Path | None, typer.Option(help=f"ROS parameter file. Default: {PARAMS}.")] = None,
    seed: Annotated[int, typer.Option(help="Order of the episodes and what is asked in them.", min=0)] = 0,
    episode: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    report: Annotated[Path | None, typer.Option(help="Run nothing: report the journal in this folder.")] = None,
) -> None:
    """The command; see HELP."""
    console, err = Console(highlight=False), Console(stderr=True, highlight=False, soft_wrap=True)
    if report is None:
        _run(minutes, out, model, params, seed, episode, err)
    folder = out if report is None else report
    try:
        found = summarise(read_journal(folder))
    except ReportError as error:
        err.print(f"acs-soak: {error}")
        raise typer.Exit(2) from error
    write_summary(found, folder)
    draw(found, folder)
    console.print(table_of(found))
    for line in found.verdicts:
        console.print(("ok   " if line.holds else "BAD  ") + line.text, markup=False)
    if not all(line.holds for line in found.verdicts):
        raise typer.Exit(1)


def _run(
    minutes: float,
    out: Path,
    model: str | None,
    params: Path | None,
    seed: int,
    episode: list[str] | None,
    err: Console,
) -> None:
    import torch

    from acs_stress.episodes import EPISODES
    from acs_stress.soak import Plan, soak

    if unknown := sorted(set(episode or ()) - set(EPISODES)):
        raise typer.BadParameter(f"no episode {unknown[0]!r}: one of {', '.join(EPISODES)}", param_hint="--episode")
    file = params or shipped_file(PARAMS)
    if not file.is_file():
        raise typer.BadParameter(f"there is no file {file}", param_hint="--params")
    try:
        out.mkdir(parents=True, exist_ok=True)
        plan = Plan(minutes, out, file, model, seed, tuple(episode or EPISODES))
        soak(plan, Machine.here(torch.device("cpu")).to_dict(), lambda text: err.print(text, markup=False))
    except NodeTrouble as error:
        err.print(f"acs-soak: {error}", markup=False)
    except OSError as error:
        err.print(f"acs-soak: {os_problem(error, out)}", markup=False)
        raise typer.Exit(2) from error
    except KeyboardInterrupt:
        err.print("acs-soak: stopped; the report is of what was seen until now")


def main() -> None:
    """Entry point."""
    app(prog_name="acs-soak")


if __name__ == "__main__":
    main()
