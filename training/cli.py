"""``acs-train``: data, embedded models, and the files that an LVLM needs for ACS."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from acs_core.errors import AcsError
from training.cli_tiny import tiny, tiny_eval
from training.console import bar, err
from training.pairs import load_pairs

app = typer.Typer(
    help="Data, embedded models, and the files that an LVLM needs for ACS.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Out = Annotated[Path, typer.Option(help="Folder to write into; made if missing.")]
Model = Annotated[str, typer.Option(help="Name of an embedded model, a model folder, or a hub id.")]
Data = Annotated[Path, typer.Option(help="COCO-style instances.json.")]
Images = Annotated[Path | None, typer.Option(help="Picture folder; default: images/ beside its annotations.")]


@app.command(epilog="Example: acs-train synth --split val --images 500 --out world/val --preview sheet.png")
def synth(
    out: Out,
    split: Annotated[str, typer.Option(help="train, val, test or shifted.")] = "train",
    images: Annotated[int, typer.Option(help="How many pictures.", min=1)] = 1000,
    workers: Annotated[int | None, typer.Option(help="Processes; default: one for each core.", min=1)] = None,
    preview: Annotated[Path | None, typer.Option(help="Also draw the first 20 with their boxes into this PNG.")] = None,
) -> None:
    """Render the world into a COCO data set."""
    from PIL import Image

    from training.preview import contact_sheet, read_scenes
    from training.synth import SPLIT_SEEDS, write_coco

    if split not in SPLIT_SEEDS:
        raise typer.BadParameter(f"choose one of {', '.join(SPLIT_SEEDS)}", param_hint="--split")
    with bar() as move:
        file = write_coco(out, split, images, workers=workers, progress=lambda d, t: move("render", d, t))
    typer.echo(f"wrote {images} pictures and {file}")
    if preview:
        preview.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(contact_sheet(read_scenes(file))).save(preview, format="PNG")
        typer.echo(f"wrote {preview}")


@app.command(epilog="Example: acs-train sprites --font NotoColorEmoji.ttf --fluent icons.json --out sprites")
def sprites(
    out: Out,
    font: Annotated[Path | None, typer.Option(help="NotoColorEmoji.ttf (Debian: fonts-noto-color-emoji).")] = None,
    fluent: Annotated[
        Path | None, typer.Option(help="icons.json of the npm package @iconify-json/fluent-emoji; needs resvg-py.")
    ] = None,
) -> None:
    """Draw the world's sprites from the emoji font, and those of the shifted split; the shipped ones were made so."""
    from training.sprites import make_fluent_sprites, make_noto_sprites

    if font is None and fluent is None:
        raise typer.BadParameter("name a source: --font, --fluent or both", param_hint="--font")
    if font:
        typer.echo(f"wrote {make_noto_sprites(font, out)} sprites into {out / 'noto'} and {out / 'clutter'}")
    if fluent:
        typer.echo(f"wrote {make_fluent_sprites(fluent, out)} sprites into {out / 'fluent'}")


app.command(epilog="Example: acs-train tiny --arch internvl --out runs/tiny --threads 2")(tiny)
app.command("tiny-eval", epilog="Example: acs-train tiny-eval --arch qwen2_5_vl --cases 500")(tiny_eval)


@app.command(epilog="Example: acs-train collect --model tiny-internvl --data world/train/instances.json --out store")
def collect(
    model: Model,
    data: Data,
    out: Out,
    images: Images = None,
    samples: Annotated[int, typer.Option(help="Responses per pair.", min=1)] = 10,
    temperature: Annotated[float, typer.Option(help="Sampling temperature tau.", min=0.01)] = 1.0,
    limit: Annotated[int | None, typer.Option(help="Only the first so many pairs.", min=1)] = None,
    map_side: Annotated[int | None, typer.Option(help="Resize maps to a square of so many cells.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Seed of the first pair.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
) -> None:
    """Sample answers and keep every box with its attention and IoU (appendix A)."""
    from acs_core.assets import resolve_model
    from acs_core.lvlm import load_lvlm
    from training import collect as job

    pairs = load_pairs(data, images)[:limit]
    lvlm = load_lvlm(resolve_model(model), device=device)
    config = job.CollectConfig(samples=samples, temperature=temperature, seed=seed, map_size=_square(map_side))
    with bar() as move:
        report = job.collect(lvlm, pairs, out, config, lambda d, t: move("collect", d, t))
    for line in report.skipped:
        err.print(f"skipped: {line}", style="yellow", markup=False)
    typer.echo(f"collected {report.collected} pairs, {report.resumed} were there, {len(report.skipped)} skipped: {out}")


@app.command(
    epilog="Example: acs-train build --model runs/tiny/tiny-internvl --train world/train/instances.json "
    "--calibration world/val/instances.json --out runs/tiny/tiny-internvl"
)
def build(
    model: Model,
    train: Annotated[Path, typer.Option(help="instances.json to collect, fit and analyse on.")],
    calibration: Annotated[Path, typer.Option(help="instances.json of other images, to calibrate on.")],
    out: Annotated[Path, typer.Option(help="Folder for the files; a model folder makes them its defaults.")],
    train_images: Images = None,
    calibration_images: Images = None,
    work: Annotated[Path, typer.Option(help="Folder for the collections; kept, so that a stopped run resumes.")] = Path(
        "work"
    ),
    limit: Annotated[int, typer.Option(help="At most so many training pairs.", min=1)] = 5000,
    calibration_limit: Annotated[int, typer.Option(help="At most so many calibration pairs.", min=50)] = 1000,
    epochs: Annotated[int, typer.Option(help="Of the regressor, at most (appendix A.2: 100).", min=1)] = 100,
    map_side: Annotated[int | None, typer.Option(help="Resize maps to a square of so many cells.", min=1)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
) -> None:
    """Make regressor, head file and calibrations for an LVLM: collect, fit, analyse, calibrate."""
    from acs_core.assets import resolve_model
    from acs_core.lvlm import load_lvlm
    from training import build as job
    from training.collect import CollectConfig
    from training.fit import FitConfig

    pairs = load_pairs(train, train_images)[:limit]
    fresh = load_pairs(calibration, calibration_images)[:calibration_limit]
    lvlm = load_lvlm(resolve_model(model), device=device)
    sources = (
        f"{len(pairs)} pairs of {train.parent.name}/{train.name}",
        f"{len(fresh)} pairs of {calibration.parent.name}/{calibration.name}",
    )
    config = job.BuildConfig(CollectConfig(map_size=_square(map_side)), FitConfig(epochs=epochs))
    made_by = job.describe(config, *sources)
    with bar() as move:
        job.build(lvlm, pairs, fresh, work, out, made_by, config, say=lambda text: err.print(text), progress=move)
    typer.echo(f"wrote regressor, head file and calibrations into {out}")


def _square(side: int | None) -> tuple[int, int] | None:
    return (side, side) if side else None


def main() -> None:
    """Entry point: exit code 2 for wrong usage, 1 for a failure, 130 after Ctrl-C."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # ours says what goes on
    try:
        app()
    except (AcsError, OSError) as error:
        err.print(f"acs-train: {error}", style="red", markup=False)
        sys.exit(1)
    except SystemExit as ended:
        if ended.code == 130:  # Ctrl-C, as typer reports it
            err.print("stopped; collect, build, tiny and tiny-eval go on when run again")
        raise


if __name__ == "__main__":
    main()
