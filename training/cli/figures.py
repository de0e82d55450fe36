"""``acs-train attention`` and ``acs-train architecture``: the paper's figures 3 and 6 to 9, and its tables 7 to 10."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from acs_core.artifacts.model_name import check_model_name
from acs_core.types import MAX_SAMPLES, MAX_TEMPERATURE, SamplingConfig
from training.cli.config import Configuration, recorded
from training.cli.console import bar, out_console
from training.cli.options import AUTO, DEFAULT_FRAME, Device, Frame, MaxImageTokens, Model, Revision, say
from training.errors import DataError
from training.settings import CollectConfig

FIGURES = ("figure-*.pdf", "figure-*.svg", "figure-*.png")
TABLES = ("tables.json", "*.csv", "*.tex")
LARGEST_REGRESSOR = 256  # layers, heads, and side of the maps


@dataclass(frozen=True, kw_only=True)
class AttentionOptions(Configuration):
    """Options of ``acs-train attention``."""

    command = "attention"
    model: Model
    picture: Annotated[tuple[Path, ...], typer.Option(help="Image to look at. Repeatable, each with its --phrase.")]
    phrase: Annotated[tuple[str, ...], typer.Option(help="What to ask for in the --picture of the same place.")]
    out: Annotated[Path, typer.Option(help="Folder for the figures, as PDF, SVG and PNG at 300 dpi.")]
    layer: Annotated[
        tuple[int, ...],
        typer.Option(help="Critical layer, from 0; default: those of the model's head file. Repeatable.", min=0),
    ] = ()
    samples: Annotated[int, typer.Option(help="Responses.", min=1, max=MAX_SAMPLES)] = CollectConfig.samples
    temperature: Annotated[float, typer.Option(help="Sampling temperature tau.", min=0.01, max=MAX_TEMPERATURE)] = (
        SamplingConfig.temperature
    )
    seed: Annotated[int, typer.Option(help="Seed of the responses.", min=0)] = CollectConfig.seed
    revision: Revision = None
    max_image_tokens: MaxImageTokens = None
    coordinate_frame: Frame = DEFAULT_FRAME
    device: Device = AUTO


def attention(options: AttentionOptions) -> None:
    """Draw where a model looks in pictures that you name: its critical layers (figure 3), and all layers for each
    coordinate (figures 6 to 9)."""
    check_model_name(options.model)
    o = options
    if len(o.picture) != len(o.phrase) or not o.picture:
        raise typer.BadParameter(
            f"give one for each --picture, got {len(o.phrase)} for {len(o.picture)}", param_hint="--phrase"
        )
    from acs_core.artifacts.identity import ModelIdentity
    from acs_core.image import read_image
    from acs_core.lvlm import load_lvlm, open_model
    from acs_core.output_folder import OutputFolder
    from acs_core.selection.defaults import default_files, scorer_for
    from acs_core.selection.registry import AUTO as DEFAULT_SELECTOR
    from acs_core.selection.registry import AcsFree
    from acs_core.types import COORDINATES
    from training.evaluation.attention_figures import critical_figure, layers_figure, see
    from training.plotting import save

    taken = OutputFolder(o.out, o.full_command, inputs=o.picture, replaces=(*FIGURES, o.run_file))
    pictures = [read_image(file) for file in o.picture]
    with recorded(o, taken), taken as folder, bar() as move:
        source = open_model(o.model, revision=o.revision, device=o.device)
        built = source.built.folder(default_files(DEFAULT_SELECTOR)) if source.built else None
        lvlm = load_lvlm(source, max_image_tokens=o.max_image_tokens, coordinate_frame=o.coordinate_frame.value)
        scorer = scorer_for(lvlm, DEFAULT_SELECTOR, built=built, calibration=False)
        heads = scorer.selector.heads.layers if isinstance(scorer.selector, AcsFree) else ()
        layers = o.layer or heads
        if too_high := [layer for layer in layers if layer >= lvlm.num_layers]:
            raise typer.BadParameter(f"the model has {lvlm.num_layers} layers, not {too_high}", param_hint="--layer")
        name_of = ModelIdentity.of(lvlm).model
        config = CollectConfig(samples=o.samples, temperature=o.temperature, seed=o.seed)
        seen = []
        for number, (picture, phrase) in enumerate(zip(pictures, o.phrase, strict=True)):
            move("ask", number, len(pictures))
            try:
                seen.append(see(lvlm, scorer, picture, phrase, config))
            except DataError as error:
                say(f"left out {o.picture[number]}, {error}")
        move("ask", len(pictures), len(pictures))
        if not seen:
            raise DataError("no picture has a box whose attention could be drawn")
        done, total = 0, 4 * len(seen) + 1
        with folder.stage(*FIGURES) as staged:
            for number, one in enumerate(seen, 1):
                for c, name in enumerate(COORDINATES):
                    save(layers_figure(one, c, layers, name_of), staged / f"figure-06-to-09-picture-{number}-{name}")
                    done += 1
                    move("draw", done, total)
            if layers:
                save(critical_figure(seen, layers, f"{name_of}: critical layers"), staged / "figure-03-critical")
            move("draw", total, total)
    if not layers:
        typer.echo(f"figure 3 is left out: {name_of} has no head file with critical layers; name them with --layer")
    typer.echo(f"wrote {3 * (total if layers else total - 1)} files into {o.out}")


@dataclass(frozen=True, kw_only=True)
class ArchitectureOptions(Configuration):
    """Options of ``acs-train architecture``."""

    command = "architecture"
    regressor: Annotated[
        Path | None, typer.Option(help="Regressor file to describe; default: the regressors of the paper's two models.")
    ] = None
    layers: Annotated[
        int | None, typer.Option(help="Layers of another model, with --heads.", min=1, max=LARGEST_REGRESSOR)
    ] = None
    heads: Annotated[int | None, typer.Option(help="Heads of a layer.", min=1, max=LARGEST_REGRESSOR)] = None
    map_side: Annotated[int, typer.Option(help="Side of the maps, in cells.", min=1, max=LARGEST_REGRESSOR)] = 24
    tables: Annotated[Path | None, typer.Option(help="Folder for the tables as JSON, CSV and LaTeX.")] = None


def architecture(options: ArchitectureOptions) -> None:
    """Print layers, parameters and memory of the regressor, counted on the module (tables 7 to 10)."""
    o = options
    if (o.layers is None) != (o.heads is None):
        raise typer.BadParameter("goes with --heads", param_hint="--layers")
    if o.regressor and o.layers:
        raise typer.BadParameter("says the numbers of layers and heads itself", param_hint="--regressor")
    from dataclasses import replace

    from acs_core.evaluation.table import print_tables
    from acs_core.evaluation.tables import write_tables
    from acs_core.output_folder import OutputFolder
    from acs_core.selection.regressor import AttentionIoURegressor, load_regressor
    from training.fitting.architecture import PAPER, architecture_tables

    taken = None
    if o.tables:
        taken = OutputFolder(o.tables, o.full_command, inputs=[o.regressor], replaces=(*TABLES, o.run_file))
    with recorded(o, taken), taken or nullcontext() as folder:
        if o.regressor:
            model, info = load_regressor(o.regressor)
            tables = list(architecture_tables(model, info.map_size, info.identity.model))
        else:
            shapes = {f"{o.layers} x {o.heads} heads": (o.layers, o.heads, o.map_side)} if o.layers else PAPER
            tables = []
            for number, (name, (layers, heads, side)) in enumerate(shapes.items(), 1):
                made = architecture_tables(AttentionIoURegressor(layers or 1, heads or 1), (side, side), name)
                tables += [replace(t, name=f"{number}-{t.name}") for t in made]
        print_tables(tables, out_console())
        if folder:
            with folder.stage(*TABLES) as staged:
                count = len(write_tables(tables, staged, latex=True))
            typer.echo(f"wrote {count} files into {folder.path}")
