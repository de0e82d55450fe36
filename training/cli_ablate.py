"""``acs-train ablate``: what the choices behind the selectors are worth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from training.console import bar, out_console


def ablate(
    heads: Annotated[Path, typer.Option(help="The model's head file, for its localization-critical layers.")],
    emitting: Annotated[
        tuple[Path, Path],
        typer.Option(
            help="Two collections of `acs-train collect`: heads are chosen on the first, and judged on the second.",
            metavar="CHOOSE JUDGE",
        ),
    ],
    consuming: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="The same, collected with --step consuming.", metavar="CHOOSE JUDGE"),
    ] = None,
    count: Annotated[list[int], typer.Option(help="Heads per coordinate. Repeatable.", min=1)] = [1, 3, 5, 10],  # noqa: B006
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the table as JSON.")] = None,
) -> None:
    """Emitting or consuming step, critical or all layers, how many heads: accuracy of acs-free and acs-fusion. And what
    low entropy goes together with: IoU, size, place, agreement."""
    from acs_core.heads import HeadFile
    from acs_eval.table import print_tables, to_json
    from training import ablate as job
    from training.entropy_follows import follows_table
    from training.store import read_store

    given = {"emitting": emitting} | ({"consuming": consuming} if consuming else {})
    steps = []
    for name, (choose, judge) in given.items():
        chosen_on, judged_on = read_store(choose), read_store(judge)
        for folder, data in ((choose, chosen_on), (judge, judged_on)):
            if (found := data.manifest.get("step", "emitting")) != name:
                raise typer.BadParameter(f"{folder} holds attention of the {found} step", param_hint=f"--{name}")
        steps.append(job.Step(name, chosen_on, judged_on))
    critical = HeadFile.load(heads)
    with bar() as move:
        table = job.ablate(steps, critical, tuple(count), progress=lambda d, t: move("ablate", d, t))
    tables = table, follows_table(steps, critical)
    print_tables(tables, out_console())
    if json_file:
        json_file.write_text(json.dumps(to_json(tables), indent=1) + "\n")
