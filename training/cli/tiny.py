"""``acs-train tiny`` and ``acs-train tiny-eval``: the embedded models."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from acs_core.artifacts.json_io import COCO, read_json
from acs_core.artifacts.model_name import check_model_name
from acs_core.types import MAX_TEMPERATURE
from training.cli.config import Configuration, recorded
from training.cli.console import bar, err, out_console
from training.cli.options import AUTO, Device, Json
from training.settings import GUIDE_WEIGHT, PAPER, CollectConfig

if TYPE_CHECKING:
    from acs_core.lvlm.base import LVLM
    from acs_core.selection.registry import Selector
    from training.tiny.arch import Arch
    from training.tiny.report import TinyReport

ArchName = Annotated[str, typer.Option(help="internvl or qwen2_5_vl.")]
INTERNVL = "internvl"


@dataclass(frozen=True, kw_only=True)
class TinyOptions(Configuration):
    """Options of ``acs-train tiny``."""

    command = "tiny"
    out: Annotated[Path, typer.Option(help="Folder to write into; created if missing.")]
    arch: ArchName = INTERNVL
    device: Device = AUTO
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1, max=1024)] = 2
    pictures: Annotated[
        Path | None, typer.Option(help="Folder of the training images, which runs may share; default: inside OUT.")
    ] = None
    workers: Annotated[int, typer.Option(help="Processes that prepare batches; use 8 with a GPU.", min=0, max=1024)] = 0
    scale: Annotated[
        float, typer.Option(help="Factor on the length of every phase, for a trial run.", min=0.0001, max=1.0)
    ] = 1.0
    base: Annotated[
        str | None, typer.Option(help="Folder or name of an embedded model to start from; default: random weights.")
    ] = None
    backgrounds: Annotated[
        Path | None, typer.Option(help="Folder of photographs that are backgrounds of training images.")
    ] = None
    first_phase: Annotated[str, typer.Option(help="Phase to begin with, A to E; with --base.")] = "A"
    steps: Annotated[
        tuple[str, ...], typer.Option(help="Steps of a phase instead of the recipe's, as D=400; repeatable.")
    ] = ()
    guide_weight: Annotated[
        float,
        typer.Option(help="Weight of the loss that supervises attention; 0 trains without it.", min=0.0, max=10.0),
    ] = GUIDE_WEIGHT


def tiny(options: TinyOptions) -> None:
    """Train an embedded model into OUT/tiny-..., from random weights or those of BASE; a stopped run is resumed."""
    import torch

    from acs_core.artifacts.registry import resolve_model
    from acs_core.lvlm.loading import pick_device
    from acs_core.output_folder import OutputFolder
    from training.tiny.train import TinyTrainer

    o = options
    chosen, picked = _make_arch(o.arch), str(pick_device(o.device))
    if o.base is None and o.first_phase != "A":
        raise typer.BadParameter("a later phase needs the weights of --base", param_hint="--first-phase")
    base = None
    if o.base is not None:
        check_model_name(o.base)
        base = Path(resolve_model(o.base))
        if not base.is_dir():
            raise typer.BadParameter("must be a folder or one of tiny-internvl, tiny-qwen2.5-vl", param_hint="--base")
    try:
        config = chosen.recipe.starting_at(o.first_phase)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--first-phase") from error
    try:
        config = replace(config.with_steps(dict(map(_phase_steps, o.steps))), guide_weight=o.guide_weight)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--steps") from error
    torch.set_num_threads(o.threads)
    with recorded(o, OutputFolder(o.out, o.full_command, replaces=[o.run_file])), bar() as move:
        trainer = TinyTrainer(
            o.out, config.shortened(o.scale), chosen, picked, o.pictures, o.workers, move, base, o.backgrounds
        )
        trainer.run()
    typer.echo(f"wrote {trainer.model_folder}")


@dataclass(frozen=True, kw_only=True)
class TinyEvalOptions(Configuration):
    """Options of ``acs-train tiny-eval``."""

    command = "tiny-eval"
    arch: ArchName = INTERNVL
    model: Annotated[
        str | None, typer.Option(help="Folder or name of a model, instead of the shipped model of ARCH.")
    ] = None
    split: Annotated[str, typer.Option(help="val, test, or shifted: other sprites, sizes, backgrounds, noise.")] = (
        "test"
    )
    crowded: Annotated[
        bool, typer.Option("--crowded", help="10 to 20 objects, more look-alikes, and objects that differ in colour.")
    ] = False
    cases: Annotated[int, typer.Option(help="Small-object cases.", min=1)] = PAPER["small"]
    temperature: Annotated[
        float, typer.Option(help="Temperature of the ten samples.", min=0.01, max=MAX_TEMPERATURE)
    ] = CollectConfig.temperature
    work: Annotated[Path, typer.Option(help="Folder for images and responses; kept.")] = Path("work/tiny-eval")
    pictures: Annotated[
        Path | None, typer.Option(help="Draw up to twenty answered scenes into this folder, instead of the table.")
    ] = None
    json: Json = None


def tiny_eval(options: TinyEvalOptions) -> None:
    """Measure the accuracy of an embedded model on held-out rendered images: greedy, the selectors, the best of ten."""
    if options.model is not None:
        check_model_name(options.model)
    # Late: torch takes seconds.
    from acs_core.artifacts.registry import resolve_model
    from acs_core.lvlm import load_lvlm
    from acs_core.output_folder import OutputFolder
    from training.data.pairs import load_absent, load_pairs
    from training.tiny.report import draw_scenes, tiny_report, write_report

    o, split, cases, pictures = options, options.split, options.cases, options.pictures
    name = o.model or _make_arch(o.arch).model_name
    if split not in ("val", "test", "shifted"):
        raise typer.BadParameter("choose val, test or shifted", param_hint="--split")
    if pictures and o.json:
        raise typer.BadParameter("only draws, so there is nothing for --json", param_hint="--pictures")
    scenes = f"{split}-crowded" if o.crowded else split
    drawn = None
    if pictures:
        drawn = OutputFolder(pictures, o.full_command, inputs=[o.work], replaces=["*.png", o.run_file])
    with recorded(o, drawn, o.json):
        with drawn or nullcontext() as folder, bar() as move:
            file = _world(o.work / scenes, split, o.crowded, cases, move)
            pairs, absent = load_pairs(file)[:cases], load_absent(file, limit=max(1, cases // 4))
            if folder:
                shown = pairs[:: max(1, len(pairs) // 20)][:20]
                with folder.stage("*.png") as staged:
                    draw_scenes(resolve_model(name), shown, staged)
                typer.echo(f"wrote {len(shown)} scenes into {pictures}")
                return
            several = load_pairs(file, multiple=True)[: max(1, cases // 10)]
            lvlm = load_lvlm(resolve_model(name), device="cpu")
            answers = o.work / f"{Path(name).name}-{scenes}-{len(pairs)}-{o.temperature}"
            report = tiny_report(
                lvlm, pairs, absent, several, _usable(lvlm, Path(name)), answers, o.temperature, progress=move
            )
        title = f"{Path(name).name}, split {scenes}: {len(pairs)} small objects (0.1-1 % of the image), N=10, "
        _print(report, f"{title}temperature={o.temperature}")
        if o.json:
            write_report(report, o.json)


def _phase_steps(text: str) -> tuple[str, int]:
    """Return the name and the number of steps in ``text``, such as "D=400".

    Raises:
        ValueError: it is no such text.
    """
    found = re.fullmatch("([A-Z])=([0-9]{1,7})", text)
    if not found:
        raise ValueError(f"{text!r} is not the letter of a phase, = and a number of steps, as in D=400")
    return found[1], int(found[2])


def _make_arch(name: str) -> Arch:
    """Return the architecture ``name``; an unknown one is a usage error of ``--arch``."""
    from training.tiny.arches import make_arch

    try:
        return make_arch(name)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--arch") from error


def _usable(lvlm: LVLM, model: Path) -> list[Selector]:
    """Return the selectors to compare: those that need no file, and those whose files are in the folder ``model`` or,
    if it is not a folder, are shipped.

    A folder of the user is not evaluated with the files of a shipped model of the same name: selectors whose files it
    lacks are reported and left out.
    """
    from acs_core.artifacts.registry import asset_for
    from acs_core.selection.registry import make_selector, selector_names, spec_of

    usable = []
    for name in sorted(selector_names(), key=lambda name: bool(spec_of(name).reads)):
        files = [kind.file_name for kind in spec_of(name).reads]
        own = model.is_dir()
        lacking = [f for f in files if not ((model / f).is_file() if own else asset_for(lvlm, f))]
        if lacking:
            err.print(
                f"without {name}: {model} has no {' and no '.join(lacking)}; acs-train build makes it", style="yellow"
            )
        else:
            usable.append(make_selector(name, lvlm))
    return usable


def _world(folder: Path, split: str, crowded: bool, cases: int, move: Callable[[str, int, int], None]) -> Path:
    """Return the COCO file of a split with at least ``cases`` small-object cases, rendered if it is missing or
    outdated."""
    from training.data.pairs import load_pairs
    from training.world.scene import WORLD_VERSION
    from training.world.synth import write_coco
    from training.world.world import world_config

    file = folder / "instances.json"
    config, images = world_config(split, crowds=crowded), max(60, cases // 2)
    while _version(file) != WORLD_VERSION or len(load_pairs(file)) < cases:
        write_coco(folder, split, images, config, progress=lambda d, t: move(f"render {split}", d, t))
        images *= 2
    return file


def _version(file: Path) -> object:
    """Return the version of the rendered world in a COCO file; None if it is missing or damaged."""
    try:
        return read_json(file, COCO)["info"].get("version")
    except (AttributeError, LookupError, TypeError, ValueError):
        return None


def _print(report: TinyReport, title: str) -> None:
    from training.tiny.gates import gates_of

    table = Table(title=title)
    for column in ("method", "samples", "Acc@0.5 %", "mIoU %", "right object %", "calibration error %"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for row in report.rows:
        known = ("-" if value is None else f"{value:.1f}" for value in (row.right_object, row.calibration_error))
        table.add_row(row.method, f"{row.samples:.1f}", f"{row.accuracy:.1f}", f"{row.miou:.1f}", *known)
    console = out_console()
    console.print(table)
    regime = report.regime
    console.print(
        f"samples differ in the object in {regime.split:.1f} % of the questions; Acc@0.5 of a box drawn at random on "
        f"the right object is {regime.object_gain:.1f} points higher than that of any box drawn at random, of the best "
        f"box {regime.box_gain:.1f} more"
    )
    console.print(
        f"against first-valid ({regime.first_valid:.1f} %): mean box {regime.mean_box:+.1f} points, smallest box "
        f"{regime.smallest:+.1f}"
    )
    console.print(f"unparseable answers: {report.unparseable:.1f} %")
    console.print(f"absent objects refused: {report.refused:.1f} % of {report.absent}")
    console.print(
        f"several objects of a category: recall {report.recall:.1f} %, precision {report.precision:.1f} % "
        f"({report.several} questions)"
    )
    for gate in gates_of(report):
        console.print(str(gate), style="" if gate.passed else "yellow", highlight=False)
    console.print(f"one greedy answer on one CPU thread: {report.answer_ms:.0f} ms (median)")
