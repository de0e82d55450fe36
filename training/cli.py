"""``acs-train``: data, embedded models, and the files that an LVLM needs for ACS."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from acs_core.errors import AcsError
from acs_core.oserrors import os_problem
from training.cli_ablate import ablate
from training.cli_build import build
from training.cli_evaluate import evaluate
from training.cli_files import analyze, calibrate, check_store, collect, fit
from training.cli_report import report
from training.cli_tiny import tiny, tiny_eval
from training.console import bar, err

app = typer.Typer(
    help="Data, embedded models, and the files that an LVLM needs for ACS.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Out = Annotated[Path, typer.Option(help="Folder to write into; made if missing.")]


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


app.command(epilog="Example: acs-train collect --model tiny-internvl --data world/train/instances.json --out store")(
    collect
)
app.command(epilog="Example: acs-train fit --store work/train --evaluate work/calibration --out files")(fit)
app.command(epilog="Example: acs-train analyze --store work/train --data world/train/instances.json --out files")(
    analyze
)
app.command(epilog="Example: acs-train calibrate --store work/calibration --out files")(calibrate)
app.command(epilog="Example: acs-train build --model tiny-internvl --coco world --out files")(build)
app.command(epilog="Example: acs-train evaluate --model tiny-internvl --data world/test/instances.json --out results")(
    evaluate
)
app.command(
    "check-store", epilog="Example: acs-train check-store --model tiny-internvl --data world/val/instances.json"
)(check_store)
app.command(epilog="Example: acs-train ablate --heads files/heads.json --emitting work/val work/test")(ablate)
app.command(epilog="Example: acs-train report evaluation.json.gz --out report.html --tables tables")(report)


def main() -> None:
    """Entry point: exit code 2 for wrong usage, 1 for a failure, 130 after Ctrl-C."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # ours says what goes on
    try:
        app()
    except (AcsError, OSError) as error:
        said = os_problem(error) if isinstance(error, OSError) else error
        err.print(f"acs-train: {said}", style="red", markup=False)
        sys.exit(1)
    except SystemExit as ended:
        if ended.code == 130:  # Ctrl-C, as typer reports it
            err.print("stopped; collect, fit, build, evaluate, tiny and tiny-eval go on when run again")
        raise


if __name__ == "__main__":
    main()
