"""``acs-load``: floods the node over DDS and says whether it kept its word."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

WIDTH = 140  # of a table that goes into a file or a pipe
out, err = Console(highlight=False), Console(stderr=True, highlight=False)
if not out.is_terminal:
    out = Console(highlight=False, width=WIDTH)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog="Example: acs-load --scenario cameras --seconds 30 --json load.json")
def load(
    scenario: Annotated[
        list[str] | None, typer.Option(help="cameras, queries, goals or subscribers; all by default.")
    ] = None,
    instant: Annotated[bool, typer.Option("--instant", help="A model that answers at once.")] = False,
    model: Annotated[str | None, typer.Option(help="Another model: short name, folder or hub id.")] = None,
    params: Annotated[
        Path | None, typer.Option(help="Parameter file (config/tiny_internvl.yaml).", exists=True, dir_okay=False)
    ] = None,
    cameras: Annotated[int, typer.Option(help="How many.", min=1, max=16)] = 4,
    hz: Annotated[float, typer.Option(help="Frames a second of each camera.", min=0.1, max=240)] = 30.0,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of the frames.")] = "1920x1080",
    seconds: Annotated[float, typer.Option(help="How long each flood lasts.", min=0.5, max=3600)] = 20.0,
    query_rate: Annotated[float, typer.Option(help="Queries a second.", min=1, max=20_000)] = 1000.0,
    goals: Annotated[int, typer.Option(help="Goals at once.", min=1, max=1000)] = 100,
    subscribers: Annotated[int, typer.Option(help="Of each kind: mute, slow, dying.", min=1, max=16)] = 2,
    service_ms: Annotated[float, typer.Option(help="Bar: 95 of 100 calls of each service.", min=1)] = 100.0,
    answer_s: Annotated[float, typer.Option(help="Bar: the newest frame's answer, from sending it.", min=0.1)] = 10.0,
    memory_mb: Annotated[float, typer.Option(help="Bar: growth of resident memory at its peak.", min=1)] = 600.0,
    log: Annotated[Path | None, typer.Option(help="Keep what the node prints in this file.", dir_okay=False)] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the numbers to this file.", dir_okay=False)
    ] = None,
) -> None:
    """Floods a grounding node, one scenario after the other, and checks its promises in numbers.

    Everybody is a process of its own on this machine, so on few cores they compete with the node: rates that were
    reached stand next to those that were wanted.
    """
    from acs_stress.floods import SCENARIOS  # late: ROS is not for --help

    chosen = list(dict.fromkeys(scenario or SCENARIOS))
    unknown = [name for name in chosen if name not in SCENARIOS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(SCENARIOS)}", param_hint="--scenario")
    if instant and (model or params):
        raise typer.BadParameter("--instant has no model and takes no --model or --params", param_hint="--instant")
    for option, file in (("--json", json_file), ("--log", log)):
        if file is not None and not file.parent.is_dir():
            raise typer.BadParameter(f"the folder {file.parent} does not exist", param_hint=option)
    from acs_stress.load import Plan

    plan = Plan(
        cameras=cameras,
        hz=hz,
        size=size_of(size),
        seconds=seconds,
        query_rate=query_rate,
        goals=goals,
        subscribers=subscribers,
        instant=instant,
        model=model,
        params=params,
        service_ms=service_ms,
        answer_s=answer_s,
        memory_mb=memory_mb,
        log=log,
    )
    missed = _run(plan, chosen, json_file)
    if missed:
        err.print(f"acs-load: {missed} {'promise was' if missed == 1 else 'promises were'} broken", style="red")
        raise typer.Exit(1)


def size_of(text: str) -> tuple[int, int]:
    """(width, height) of a text like 640x480.

    Raises:
        typer.BadParameter: it is no such text, or no size of a frame.
    """
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise typer.BadParameter(f"{text!r} is not like 640x480", param_hint="--size")
    if not (16 <= int(width) <= 4096 and 16 <= int(height) <= 4096):
        raise typer.BadParameter(f"sides are from 16 to 4096 pixels, got {text}", param_hint="--size")
    return int(width), int(height)


def _run(plan: Any, chosen: list[str], json_file: Path | None) -> int:
    """How many promises were broken."""
    from acs_stress.floods import SCENARIOS
    from acs_stress.load import loaded_node

    outcomes = []
    err.print(f"starting the node with {'a model that answers at once' if plan.instant else 'its model'}", style="dim")
    with loaded_node(plan) as stage:
        for name in chosen:
            err.print(f"{name}: {plan.seconds:g} s", style="dim")
            outcome = SCENARIOS[name](stage)
            outcomes.append(outcome)
            out.print(_table(outcome))
    if json_file is not None:
        numbers = {
            "command": " ".join(["acs-load", *sys.argv[1:]]),
            "machine": _machine(),
            "model": "instant" if plan.instant else plan.model or "tiny-internvl",
            "kept": all(outcome.kept for outcome in outcomes),
            "scenarios": [outcome.to_dict() for outcome in outcomes],
        }
        json_file.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    return sum(not check.kept for outcome in outcomes for check in outcome.checks)


def _machine() -> dict[str, Any]:
    """Where and when, and what else the machine had to do: its load average of the last five minutes."""
    import torch  # late: it takes seconds

    from acs_bench.machine import Machine

    return {**Machine.here(torch.device("cpu")).to_dict(), "load_average": round(os.getloadavg()[1], 1)}


def _table(outcome: Any) -> Table:
    table = Table(
        title=f"{outcome.name}: {escape(outcome.load)}",
        title_justify="left",
        caption=escape(outcome.used),
        caption_justify="left",
        box=None,
        pad_edge=False,
    )
    for column in ("", "promise", "numbers"):
        table.add_column(column, overflow="fold")
    for check in outcome.checks:
        mark = "[green]kept[/]" if check.kept else "[red]BROKEN[/]"
        table.add_row(mark, check.promise, escape(check.said))
    return table


def main() -> None:
    """Runs the command; a failure is a few lines and exit code 1."""
    from acs_ros.node_client import NodeTrouble

    try:
        app()
    except SystemExit as ended:
        if ended.code == 130:  # Ctrl-C, as typer reports it
            err.print("acs-load: stopped")
        raise
    except (NodeTrouble, OSError) as error:
        err.print(f"acs-load: {error}", markup=False, style="red")
        sys.exit(1)


if __name__ == "__main__":
    main()
