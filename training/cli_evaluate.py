"""``acs-train evaluate``: the paper's tables for one model and one data set."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from training.cli_options import Device, Images, MapSide, Revision, Step, StepOption, data_name, say, square
from training.console import bar, err, out_console

if TYPE_CHECKING:
    from acs_core.lvlm.base import LVLM
    from acs_eval.records import Evaluation
    from acs_eval.table import Table
    from training.evaluate import Wanted
Temperatures = Annotated[list[float], typer.Option(help="Sampling temperature tau. Repeatable.", min=0.01)]


def evaluate(
    data: Annotated[Path, typer.Option(help="COCO-style instances.json, or a folder of COCO 2017 or Objects365.")],
    model: Annotated[
        str, typer.Option(help="Name of an embedded model, a model folder, a hub id, or a folder of `acs-train build`.")
    ],
    images: Images = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the evaluation file and the tables as CSV.")] = None,
    work: Annotated[
        Path, typer.Option(help="Folder for collections and runs; kept, so that a second run asks nothing.")
    ] = Path("work/evaluate"),
    collected: Annotated[
        list[Path],
        typer.Option(help="Folder whose sub-folders `acs-train collect` wrote; those that fit are read. Repeatable."),
    ] = [],  # noqa: B006 - typer wants a list
    temperature: Temperatures = [0.5, 0.7, 1.0],  # noqa: B006
    samples: Annotated[int, typer.Option(help="Responses that a method chooses from.", min=1)] = 10,
    curve: Annotated[
        list[float],
        typer.Option(
            help="Temperature at which small objects get up to --most samples, for tables 4 and 5. Repeatable."
        ),
    ] = [1.0],  # noqa: B006
    most: Annotated[
        int, typer.Option(help="Responses at a --curve temperature; --samples or less for no curve.", min=1)
    ] = 30,
    small: Annotated[
        int, typer.Option(help="Questions about one small object (0.1-1 %), at most; 0: none.", min=0)
    ] = 2225,
    several: Annotated[int, typer.Option(help="Questions about several small objects, at most.", min=0)] = 759,
    medium: Annotated[int, typer.Option(help="Questions about one medium object (1-5 %), at most.", min=0)] = 0,
    large: Annotated[int, typer.Option(help="Questions about one large object (above 5 %), at most.", min=0)] = 2225,
    second_look: Annotated[
        list[str],
        typer.Option(help="Selector that also answers small objects with a second look, as acs-fusion. Repeatable."),
    ] = [],  # noqa: B006
    files: Annotated[
        Path | None,
        typer.Option(help="Folder with regressor, head file and calibrations to use instead of the model's own."),
    ] = None,
    latency: Annotated[int, typer.Option(help="Also measure so many answers of each method on one thread.", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="Of the drawn questions and of the first response.", min=0)] = 0,
    step: StepOption = Step.EMITTING,
    map_side: MapSide = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only say which collections are needed, and where.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the tables as JSON.")] = None,
    revision: Revision = None,
    device: Device = "auto",
) -> None:
    """Answer with every selector and print the tables of the paper. Resumes where it was stopped."""
    from acs_core.identity import weights_fingerprint
    from acs_core.types import SamplingConfig
    from training import evaluate as job
    from training.build import find_coco
    from training.coco import read_coco
    from training.evaluate_cache import Shelf
    from training.evaluate_latency import with_latency
    from training.evaluate_second import with_second_looks

    for name in second_look:
        _known(name)
    if json_file and not json_file.parent.is_dir():
        raise typer.BadParameter(f"the folder {json_file.parent} does not exist", param_hint="--json")
    annotations, pictures = find_coco(data)[1] if data.is_dir() else (data, images)
    content = read_coco(annotations, images or pictures)
    for line in content.problems.lines():
        err.print(f"{annotations.name}: left out {line}", style="yellow", markup=False)
    config = job.EvaluateConfig(
        {"small": small, "several small": several, "medium": medium, "large": large},
        tuple(sorted(set(temperature))),
        samples,
        tuple(n for n in job.CURVE if n <= max(most, samples)),
        tuple(curve) if most > samples else (),
        seed,
        square(map_side),
        step=step.value,
    )
    groups = job.choose_groups(content, config, say)
    lvlm, built = _open(model, revision, device)
    judges = job.judges_for(lvlm, files or built, say)
    config = replace(config, map_size=config.map_size or job.map_size_of(judges))
    weights, source = weights_fingerprint(lvlm), data_name(annotations)
    shelf = Shelf(work / "collections", collected)
    wanted = job.plan(lvlm, groups, config, shelf, source, weights)
    if plan:
        _show(wanted)
        return
    sizes = {image.id: image.size for image in content.images}
    with bar() as move:
        found = job.evaluate(
            lvlm, judges, wanted, sizes, work, config, f"{model} on {source}", source, say, move, weights
        )
        if second_look:
            twice = [judge for judge in judges if judge.selector.name in second_look]
            found = with_second_looks(found, lvlm, twice, wanted, shelf, work, config, source, weights, say, move)
        if latency:
            first = found.groups[0]
            asked = {question.key for question in first.questions}
            pairs = [pair for pair in groups[first.name] if pair.key in asked][:latency]
            sampling = SamplingConfig(samples, config.temperatures[0], seed=seed)
            found = with_latency(found, lvlm, judges, pairs, sampling, lambda d, t: move("time answers", d, t))
    _tell(found, out, json_file)


def _known(selector: str) -> None:
    from acs_core.errors import SelectorError
    from acs_core.selection import check_name

    try:
        check_name(selector)
    except SelectorError as error:
        raise typer.BadParameter(str(error), param_hint="--second-look") from error


def _open(model: str, revision: str | None, device: str) -> tuple[LVLM, Path | None]:
    """The loaded model, and the folder of `acs-train build` if ``model`` is one."""
    from acs_core.assets import built_for, resolve_model
    from acs_core.lvlm import load_lvlm

    built = built_for(Path(model))
    source, commit = (built.model, revision or built.revision) if built else (model, revision)
    return load_lvlm(resolve_model(source), revision=commit, device=device), Path(model) if built else None


def _show(wanted: list[Wanted]) -> None:
    for w in wanted:
        config = w.job.config
        drawn = "greedy" if config.greedy else f"{config.samples} samples at tau {config.temperature:g}"
        state = "complete" if w.place.complete else "to be collected"
        typer.echo(f"{w.group}: {len(w.job.pairs)} questions, {drawn}, {state}: {w.place.folder}")


def _tell(found: Evaluation, out: Path | None, json_file: Path | None) -> None:
    """Prints the tables and writes the files."""
    from acs_eval.storage import save
    from acs_eval.table import print_tables, to_json
    from acs_eval.tables import assess, tables_of, write_tables
    from training.evaluate import write_questions

    if out:
        found = save(found, out / "evaluation.json.gz")
    tables: tuple[Table, ...] = tables_of(assess(found))
    print_tables(tables, out_console())
    if out:
        write_tables(tables, out)
        write_questions(found, out / "questions.json")
        typer.echo(f"wrote evaluation.json.gz, questions.json and {len(tables)} tables into {out}")
    if json_file:
        json_file.write_text(json.dumps(to_json(tables), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
