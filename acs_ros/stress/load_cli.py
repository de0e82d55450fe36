"""``acs-load``: loads the node over DDS and checks its requirements."""

from __future__ import annotations

if __name__ == "__main__":  # first: a signal may come while the modules below are imported
    from acs_core.entry import run

    run("acs_ros.stress.load_cli", "acs-load")

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from acs_core.errors import AcsError, os_problem
from acs_core.option_types import StrictTyper
from acs_core.output import checked_option, write_json
from acs_core.terminal import make_console, print_error
from acs_core.types import DEFAULT_MODEL

WIDTH = 140  # of tables in files and pipes
out, err = make_console(piped_width=WIDTH), make_console(stderr=True)
app = StrictTyper()


@app.command(epilog="Example: acs-load --scenario cameras --seconds 30 --json load.json")
def load(
    scenario: Annotated[
        list[str] | None, typer.Option(help="cameras, queries, goals or subscribers; all by default.")
    ] = None,
    instant: Annotated[bool, typer.Option("--instant", help="A model that answers at once.")] = False,
    model: Annotated[str | None, typer.Option(help="Another model: short name, folder or hub id.")] = None,
    params: Annotated[
        Path | None, typer.Option(help="Parameter file (config/tiny_qwen2_5_vl.yaml).", exists=True, dir_okay=False)
    ] = None,
    cameras: Annotated[int, typer.Option(help="How many.", min=1, max=16)] = 4,
    hz: Annotated[float, typer.Option(help="Frames a second of each camera.", min=0.1, max=240)] = 30.0,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of the frames.")] = "1920x1080",
    seconds: Annotated[float, typer.Option(help="How long each flood lasts.", min=0.5, max=3600)] = 20.0,
    query_rate: Annotated[float, typer.Option(help="Queries a second.", min=1, max=20_000)] = 1000.0,
    goals: Annotated[int, typer.Option(help="Goals at once.", min=1, max=1000)] = 100,
    subscribers: Annotated[int, typer.Option(help="Of each kind: mute, slow, dying.", min=1, max=16)] = 2,
    service_ms: Annotated[float, typer.Option(help="Bar: 95 of 100 calls of each service.", min=1, max=1e9)] = 100.0,
    answer_s: Annotated[
        float, typer.Option(help="Bar: the newest frame's answer, from sending it.", min=0.1, max=1e6)
    ] = 10.0,
    memory_mb: Annotated[
        float, typer.Option(help="Bar: growth of resident memory at its peak.", min=1, max=1e9)
    ] = 600.0,
    log: Annotated[
        Path | None, typer.Option(callback=checked_option, help="Keep what the node prints in this file.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", callback=checked_option, help="Also write the numbers to this file.")
    ] = None,
) -> None:
    """Flood a grounding node in one scenario after the other, and check its requirements.

    Every load client is a process on this machine, so on few cores they compete with the node: the rates reached are
    printed next to those requested.
    """
    from acs_ros.stress.scenarios import SCENARIOS  # imported late: --help must not wait for ROS

    chosen = list(dict.fromkeys(scenario or SCENARIOS))
    unknown = [name for name in chosen if name not in SCENARIOS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(SCENARIOS)}", param_hint="--scenario")
    if instant and (model or params):
        raise typer.BadParameter("--instant has no model and takes no --model or --params", param_hint="--instant")
    from acs_ros.node.given_parameters import check_file
    from acs_ros.stress.load import LoadConfig
    from acs_ros.stress.robot import NODE

    try:
        if params:
            check_file(params, NODE)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--params") from error
    plan = LoadConfig(
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
        print_error("acs-load", f"{missed} {'promise was' if missed == 1 else 'promises were'} broken")
        raise typer.Exit(1)


def size_of(text: str) -> tuple[int, int]:
    """Return (width, height) of a text like 640x480.

    Raises:
        typer.BadParameter: it is not such a text, or not the size of a frame.
    """
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise typer.BadParameter(f"{text!r} is not like 640x480", param_hint="--size")
    if not (16 <= int(width) <= 4096 and 16 <= int(height) <= 4096):
        raise typer.BadParameter(f"sides are from 16 to 4096 pixels, got {text}", param_hint="--size")
    return int(width), int(height)


def _run(plan: Any, chosen: list[str], json_file: Path | None) -> int:
    """Run the scenarios; returns the number of failed checks."""
    from acs_ros.stress.load import loaded_node
    from acs_ros.stress.scenarios import SCENARIOS

    outcomes = []
    err.print(f"starting the node with {'a model that answers at once' if plan.instant else 'its model'}", style="dim")
    with loaded_node(plan) as context:
        for name in chosen:
            err.print(f"{name}: {plan.seconds:g} s", style="dim")
            outcome = SCENARIOS[name](context)
            outcomes.append(outcome)
            out.print(_table(outcome))
    if json_file is not None:
        numbers = {
            "command": " ".join(["acs-load", *sys.argv[1:]]),
            "machine": _machine(),
            "model": "instant" if plan.instant else plan.model or DEFAULT_MODEL,
            "kept": all(outcome.kept for outcome in outcomes),
            "scenarios": [outcome.to_dict() for outcome in outcomes],
        }
        write_json(json_file, numbers, "acs-load")
    return sum(not check.kept for outcome in outcomes for check in outcome.checks)


def _machine() -> dict[str, Any]:
    """Return the machine, library versions, date, and the load average of the last five minutes."""
    import torch  # imported late: takes seconds

    from acs_core.bench.measure import MachineInfo

    return {**MachineInfo.here(torch.device("cpu")).to_dict(), "load_average": round(os.getloadavg()[1], 1)}


def _table(outcome: Any) -> Table:
    table = Table(
        title=Text(f"{outcome.name}: {outcome.load}"),
        title_justify="left",
        caption=Text(outcome.used),
        caption_justify="left",
        box=None,
        pad_edge=False,
    )
    for column in ("", "promise", "numbers"):
        table.add_column(column, overflow="fold")
    for check in outcome.checks:
        mark = Text("kept", "green") if check.kept else Text("BROKEN", "red")
        table.add_row(mark, check.promise, check.said)
    return table


def main() -> None:
    """Run the command; a failure is one line and exit code 1."""
    try:
        app()
    except AcsError as error:
        print_error("acs-load", error)
        sys.exit(1)
    except OSError as error:
        print_error("acs-load", os_problem(error))
        sys.exit(1)
