"""``acs-train``: data, embedded models, and the files that an LVLM needs for ACS."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from acs_core.errors import AcsError
from training.coco import load_pairs

app = typer.Typer(
    help="Data, embedded models, and the files that an LVLM needs for ACS.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
err = Console(stderr=True)

Out = Annotated[Path, typer.Option(help="Folder to write into; made if missing.")]
Model = Annotated[str, typer.Option(help="Name of an embedded model, a model folder, or a hub id.")]
Data = Annotated[Path, typer.Option(help="COCO-style instances.json.")]
Images = Annotated[Path | None, typer.Option(help="Picture folder; default: images/ beside its annotations.")]


@app.command(epilog="Example: acs-train synth --split val --images 500 --out world/val")
def synth(
    out: Out,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "train",
    images: Annotated[int, typer.Option(help="How many pictures.", min=1)] = 1000,
) -> None:
    """Render the world into a COCO data set."""
    from training.synth import SPLIT_SEEDS, write_coco

    if split not in SPLIT_SEEDS:
        raise typer.BadParameter(f"choose one of {', '.join(SPLIT_SEEDS)}", param_hint="--split")
    with _bar() as bar:
        file = write_coco(out, split, images, progress=lambda d, t: bar("render", d, t))
    typer.echo(f"wrote {images} pictures and {file}")


@app.command(epilog="Example: acs-train sprites --font NotoColorEmoji.ttf --out sprites")
def sprites(
    font: Annotated[Path, typer.Option(help="NotoColorEmoji.ttf (Debian: fonts-noto-color-emoji).")],
    out: Out,
) -> None:
    """Draw the world's sprites from the emoji font; the shipped ones were made so."""
    from training.sprites import make_sprites

    typer.echo(f"wrote {make_sprites(font, out)} sprites into {out}")


@app.command(epilog="Example: acs-train tiny --arch internvl --out runs/tiny --threads 2")
def tiny(
    out: Out,
    arch: Annotated[str, typer.Option(help="Architecture: internvl.")] = "internvl",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 2,
    scale: Annotated[float, typer.Option(help="Shortens every phase, for a trial run.", min=0.0001, max=1.0)] = 1.0,
) -> None:
    """Train the embedded model from nothing; run again to go on after a stop. The model lands in OUT/tiny-internvl."""
    import torch

    from training.tiny.train import TinyTrainer, TrainConfig

    if arch != "internvl":
        raise typer.BadParameter(f"unknown architecture {arch!r}: only internvl can be trained", param_hint="--arch")
    torch.set_num_threads(threads)
    full = TrainConfig()
    first, second, third = (max(1, round(s * scale)) for s in full.steps)
    pictures = max(64, round(full.pictures * scale))
    TinyTrainer(out, TrainConfig(pictures=pictures, steps=(first, second, third)), device=device).run()


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
    with _bar() as bar:
        report = job.collect(lvlm, pairs, out, config, lambda d, t: bar("collect", d, t))
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
    map_side: Annotated[int | None, typer.Option(help="Resize maps to a square of so many cells.", min=1)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
) -> None:
    """Make regressor, head file and calibrations for an LVLM: collect, fit, analyse, calibrate."""
    from acs_core.assets import resolve_model
    from acs_core.lvlm import load_lvlm
    from training import build as job
    from training.collect import CollectConfig

    pairs = load_pairs(train, train_images)[:limit]
    fresh = load_pairs(calibration, calibration_images)[:calibration_limit]
    lvlm = load_lvlm(resolve_model(model), device=device)
    sources = (
        f"{len(pairs)} pairs of {train.parent.name}/{train.name}",
        f"{len(fresh)} pairs of {calibration.parent.name}/{calibration.name}",
    )
    config = job.BuildConfig(collect=CollectConfig(map_size=_square(map_side)))
    made_by = job.describe(config, *sources)
    with _bar() as bar:
        job.build(lvlm, pairs, fresh, work, out, made_by, config, say=lambda text: err.print(text), progress=bar)
    typer.echo(f"wrote regressor, head file and calibrations into {out}")


@app.command("tiny-eval", epilog="Example: acs-train tiny-eval --cases 2225")
def tiny_eval(
    model: Model = "tiny-internvl",
    cases: Annotated[int, typer.Option(help="Small-object cases of the test split.", min=1)] = 500,
    temperature: Annotated[float, typer.Option(help="Of the ten samples.", min=0.01)] = 0.5,
    work: Annotated[Path, typer.Option(help="Folder for pictures and answers; kept.")] = Path("work/tiny-eval"),
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the table as JSON.")] = None,
) -> None:
    """Accuracy of an embedded model on held-out rendered pictures: greedy, the selectors, and the best of ten."""
    from acs_core.assets import resolve_model
    from acs_core.lvlm import load_lvlm
    from acs_core.selection import make_selector
    from training.synth import write_coco
    from training.tiny.report import tiny_report

    file = work / "test" / "instances.json"
    with _bar() as bar:
        if not file.exists() or len(load_pairs(file)) < cases:
            write_coco(work / "test", "test", cases, progress=lambda d, t: bar("render", d, t))
        pairs = load_pairs(file)[:cases]
        lvlm = load_lvlm(resolve_model(model), device="cpu")
        selectors = [make_selector(name, lvlm) for name in ("greedy", "first-valid", "acs-free", "acs-learned")]
        folder = work / f"{Path(model).name}-{len(pairs)}-{temperature}"
        rows = tiny_report(lvlm, pairs, selectors, folder, temperature, progress=bar)
    table = Table(
        title=f"{Path(model).name}: {len(pairs)} small objects (0.1-1 % of the image), N=10, tau={temperature}"
    )
    for column in ("method", "Acc@0.5 %", "mIoU %", "calibration error %"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for row in rows:
        error = "-" if row.calibration_error is None else f"{row.calibration_error:.1f}"
        table.add_row(row.method, f"{row.accuracy:.1f}", f"{row.miou:.1f}", error)
    Console().print(table)
    if json_file:
        json_file.write_text(json.dumps({"cases": len(pairs), "rows": [asdict(r) for r in rows]}, indent=2) + "\n")


def _square(side: int | None) -> tuple[int, int] | None:
    return (side, side) if side else None


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar with one line for each stage; gives the function that moves it."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=err) as progress:
        tasks: dict[str, object] = {}

        def move(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.update(tasks[stage], completed=done, total=total)  # type: ignore[arg-type]

        yield move


def main() -> None:
    """Entry point: exit code 2 for wrong usage, 1 for a failure, 130 after Ctrl-C."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # ours says what goes on
    try:
        app()
    except (AcsError, OSError) as error:
        err.print(f"acs-train: {error}", style="red", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        err.print("stopped; run the same command again to go on")
        sys.exit(130)


if __name__ == "__main__":
    main()
