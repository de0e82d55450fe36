"""``acs-train build``: all files for an LVLM with one command."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from training.cli_options import (
    Actors,
    AllLayers,
    Count,
    Device,
    Epochs,
    Heads,
    HighIou,
    Images,
    Input,
    Layers,
    LowIou,
    MapSide,
    Model,
    Objects,
    Ray,
    Revision,
    Size,
    Sizes,
    Transform,
    data_name,
    models_of,
    pairs_of,
    say,
    sources_of,
    square,
)
from training.console import bar


def build(
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder for the files; a model folder makes them its defaults.")],
    coco: Annotated[
        Path | None,
        typer.Option(help="Folder of COCO 2017, of Objects365, or with train/ and val/ of acs-train synth."),
    ] = None,
    train: Annotated[Path | None, typer.Option(help="instances.json to collect, fit and analyse on.")] = None,
    calibration: Annotated[Path | None, typer.Option(help="instances.json of other images, to calibrate on.")] = None,
    train_images: Images = None,
    calibration_images: Images = None,
    work: Annotated[Path, typer.Option(help="Folder for the collections; kept, so that a stopped run resumes.")] = Path(
        "work"
    ),
    size: Sizes = [Size.SMALL],  # noqa: B006
    objects: Count = Objects.SINGLE,
    limit: Annotated[int, typer.Option(help="At most so many training pairs.", min=1)] = 5000,
    calibration_limit: Annotated[int, typer.Option(help="At most so many calibration pairs.", min=50)] = 1000,
    epochs: Epochs = 100,
    input_transform: Input = Transform.LOG,
    heads: Heads = 3,
    high_iou: HighIou = 0.7,
    low_iou: LowIou = 0.3,
    layers: Layers = None,
    all_layers: AllLayers = False,
    map_side: MapSide = None,
    ray: Ray = None,
    actors: Actors = None,
    revision: Revision = None,
    device: Device = "auto",
) -> None:
    """Make regressor, joint quality, head file and calibrations for an LVLM: collect, fit, analyse, calibrate."""
    from training import build as job
    from training.analyze import AnalysisConfig
    from training.collect_job import CollectConfig
    from training.fit import FitConfig

    (train, train_images), (calibration, calibration_images) = sources_of(
        coco, (train, train_images), (calibration, calibration_images)
    )
    pairs = pairs_of(train, train_images, size, objects, limit, 0)
    fresh = pairs_of(calibration, calibration_images, size, objects, calibration_limit, 0)
    lvlm, run = models_of(model, revision, device, ray, actors)
    names = data_name(train), data_name(calibration)
    config = job.BuildConfig(
        CollectConfig(map_size=square(map_side)),
        FitConfig(epochs=epochs, input_transform=str(input_transform)),
        AnalysisConfig(heads, high_iou, low_iou, layers, not all_layers),
    )
    made_by = job.describe(config, f"{len(pairs)} pairs of {names[0]}", f"{len(fresh)} pairs of {names[1]}")
    command = f"acs-train {shlex.join(sys.argv[1:])}"
    with bar() as move:
        job.build(lvlm, pairs, fresh, work, out, made_by, config, say, move, model, command, names, run, device)
    typer.echo(f"wrote regressor, joint quality, head file, calibrations and a model card into {out}")
