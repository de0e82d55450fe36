"""``acs-soak``: runs the node for hours under all loads and faults in turn and checks every answer."""

from __future__ import annotations

if __name__ == "__main__":  # first: a signal may come while the modules below are imported
    from acs_core.entry import run

    run("acs_ros.stress.soak_cli", "acs-soak")

from pathlib import Path
from typing import Annotated

import typer

from acs_core.errors import OutputError, os_problem
from acs_core.option_types import StrictTyper
from acs_core.output import written_by
from acs_core.output_folder import OutputFolder
from acs_core.terminal import PlainConsole, make_console, print_error
from acs_ros.errors import NodeTrouble
from acs_ros.files import shipped_file
from acs_ros.stress.soak_journal import COMMAND, JOURNAL, ReportError, read_journal
from acs_ros.stress.soak_report import (
    PICTURE,
    SUMMARY,
    draw,
    summarise,
    table_of,
    write_summary,
)

PARAMS = "config/tiny_qwen2_5_vl.yaml"
HELP = """Run the grounding node under floods, faults, transitions and clock jumps in turn, and hold every answer
against what was asked.

Example: acs-soak --minutes 120 --out soak_output

Everything that is seen goes into OUT/soak.jsonl line by line; `acs-soak --report OUT` makes the report of it again,
also of a run that was stopped. Exit status 1: a promise was broken, or something grew."""
app = StrictTyper(rich_markup_mode=None)


@app.command(help=HELP)
def soak_command(
    minutes: Annotated[
        float, typer.Option(help="How long; at least one round of all episodes is run.", min=0.0, max=1e6)
    ] = 120,
    out: Annotated[Path, typer.Option(help="Folder for journal, logs and report.")] = Path("soak_output"),
    model: Annotated[str | None, typer.Option(help="Another model than that of the parameters.")] = None,
    params: Annotated[Path | None, typer.Option(help=f"ROS parameter file. Default: {PARAMS}.")] = None,
    seed: Annotated[int, typer.Option(help="Order of the episodes and what is asked in them.", min=0)] = 0,
    episode: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    report: Annotated[Path | None, typer.Option(help="Run nothing: report the journal in this folder.")] = None,
) -> None:
    """Run a soak or print its report; see HELP."""
    console, err = make_console(), make_console(stderr=True, soft_wrap=True)
    folder = out if report is None else report
    try:
        if report is not None:
            read_journal(report)  # checked before the folder is marked as ours
        with OutputFolder(folder, COMMAND, inputs=[params], replaces=(SUMMARY, PICTURE), adopts=_is_soak) as held:
            if report is None:
                _run(minutes, out, model, params, seed, episode, err)
            found = summarise(read_journal(folder))
            with held.stage() as staged:
                write_summary(found, staged)
                draw(found, staged)
    except (ReportError, OutputError) as error:
        print_error("acs-soak", error)
        raise typer.Exit(2) from error
    except OSError as error:
        print_error("acs-soak", os_problem(error, folder))
        raise typer.Exit(2) from error
    console.print(table_of(found))
    for line in found.verdicts:
        console.print(("ok   " if line.holds else "BAD  ") + line.text, markup=False)
    if not all(line.holds for line in found.verdicts):
        raise typer.Exit(1)


def _is_soak(folder: Path) -> bool:
    """Whether ``folder`` holds a journal of acs-soak, even if the soak was stopped before the folder was marked."""
    return written_by(folder / JOURNAL) == COMMAND


def _run(
    minutes: float,
    out: Path,
    model: str | None,
    params: Path | None,
    seed: int,
    episode: list[str] | None,
    err: PlainConsole,
) -> None:
    import torch

    from acs_core.bench.measure import MachineInfo
    from acs_ros.node.given_parameters import check_file
    from acs_ros.stress.episodes import EPISODES
    from acs_ros.stress.robot import NODE
    from acs_ros.stress.soak import SoakConfig, check_files, soak

    if unknown := sorted(set(episode or ()) - set(EPISODES)):
        raise typer.BadParameter(f"no episode {unknown[0]!r}: one of {', '.join(EPISODES)}", param_hint="--episode")
    file = params or shipped_file(PARAMS)
    if not file.is_file():
        raise typer.BadParameter(f"there is no file {file}", param_hint="--params")
    try:
        check_file(file, NODE)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--params") from error
    check_files(out)
    try:
        plan = SoakConfig(minutes, out, file, model, seed, tuple(episode or EPISODES))
        soak(plan, MachineInfo.here(torch.device("cpu")).to_dict(), lambda text: err.print(text, markup=False))
    except NodeTrouble as error:
        print_error("acs-soak", error)
    except KeyboardInterrupt:
        print_error("acs-soak", "stopped; the report is of what was seen until now")


def main() -> None:
    """Entry point."""
    app(prog_name="acs-soak")
