"""``acs-train synth`` and ``acs-train sprites``: the rendered world."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from training.cli.config import Configuration, recorded
from training.cli.console import bar
from training.cli.options import Out


@dataclass(frozen=True, kw_only=True)
class SynthOptions(Configuration):
    """Options of ``acs-train synth``."""

    command = "synth"
    out: Out
    split: Annotated[str, typer.Option(help="train, val, test or shifted.")] = "train"
    images: Annotated[int, typer.Option(help="Number of images.", min=1)] = 1000
    workers: Annotated[int | None, typer.Option(help="Processes; default: one per core.", min=1, max=1024)] = None
    backgrounds: Annotated[
        Path | None, typer.Option(help="Folder of photographs to use as backgrounds; each split takes a share of them.")
    ] = None
    crowded: Annotated[
        bool, typer.Option("--crowded", help="10 to 20 objects, more look-alikes, and objects that differ in colour.")
    ] = False
    near: Annotated[
        bool, typer.Option("--near", help="4 to 8 objects of 0.5 to 3 % of the image, all different, as in the demo.")
    ] = False
    preview: Annotated[
        Path | None, typer.Option(help="Also draw the first 20 images with their boxes into this PNG.")
    ] = None


def synth(options: SynthOptions) -> None:
    """Render the world into a COCO data set."""
    from acs_core.output import check_target, write_picture
    from acs_core.output_folder import OutputFolder
    from training.world.preview import contact_sheet, read_scenes
    from training.world.synth import SPLIT_SEEDS, write_coco
    from training.world.world import world_config

    out, preview = options.out, options.preview
    if options.split not in SPLIT_SEEDS:
        raise typer.BadParameter(f"choose one of {', '.join(SPLIT_SEEDS)}", param_hint="--split")
    if preview:
        preview.parent.mkdir(parents=True, exist_ok=True)
        check_target(preview)
    if options.crowded and options.near:
        raise typer.BadParameter("cannot be combined with --crowded", param_hint="--near")
    with recorded(options, OutputFolder(out, options.full_command, replaces=[options.run_file])), bar() as move:
        config = world_config(options.split, options.backgrounds, options.crowded, options.near)
        file = write_coco(out, options.split, options.images, config, options.workers, partial(move, "render"))
    typer.echo(f"wrote {options.images} pictures and {file}")
    if preview:
        write_picture(preview, contact_sheet(read_scenes(file)), options.full_command)
        typer.echo(f"wrote {preview}")


@dataclass(frozen=True, kw_only=True)
class SpritesOptions(Configuration):
    """Options of ``acs-train sprites``."""

    command = "sprites"
    out: Out
    font: Annotated[Path | None, typer.Option(help="NotoColorEmoji.ttf (Debian: fonts-noto-color-emoji).")] = None
    fluent: Annotated[
        Path | None, typer.Option(help="icons.json of the npm package @iconify-json/fluent-emoji; needs resvg-py.")
    ] = None


def sprites(options: SpritesOptions) -> None:
    """Draw the world's sprites from the emoji font, and those of the shifted split, as for the shipped ones."""
    from acs_core.output_folder import OutputFolder
    from training.world.sprites import make_fluent_sprites, make_noto_sprites

    out, font, fluent = options.out, options.font, options.fluent
    if font is None and fluent is None:
        raise typer.BadParameter("name a source: --font, --fluent or both", param_hint="--font")
    patterns = (["noto/*", "clutter/*"] if font else []) + (["fluent/*"] if fluent else [])
    taken = OutputFolder(out, options.full_command, inputs=(font, fluent), replaces=[*patterns, options.run_file])
    with recorded(options, taken), taken as folder, folder.stage(*patterns) as staged:
        noto = make_noto_sprites(font, staged) if font else 0
        flat = make_fluent_sprites(fluent, staged) if fluent else 0
    if font:
        typer.echo(f"wrote {noto} sprites into {out / 'noto'} and {out / 'clutter'}")
    if fluent:
        typer.echo(f"wrote {flat} sprites into {out / 'fluent'}")
