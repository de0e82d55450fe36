"""``acs-train build``: makes all files for an LVLM with one command."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from acs_core.artifacts.model_name import check_model_name
from training.cli.config import Configuration, recorded
from training.cli.console import bar
from training.cli.data import both_sides_of, pairs_of, sides_of, without_trained
from training.cli.options import (
    AUTO,
    DEFAULT_DTYPE,
    DEFAULT_FRAME,
    DEFAULT_QUANTIZATION,
    DEFAULT_TRANSFORM,
    RAY_RETRIES,
    RAY_TIMEOUT,
    AbsentShare,
    Actors,
    AllLayers,
    BatchSize,
    Count,
    Device,
    DtypeOption,
    Epochs,
    Frame,
    Heads,
    HighIou,
    Images,
    Input,
    Layers,
    LearningRate,
    LowIou,
    MapSide,
    MaxImageTokens,
    Model,
    Objects,
    Patience,
    Phrases,
    QuantizationOption,
    Ray,
    RayRetries,
    RayTimeout,
    Revision,
    Size,
    Sizes,
    TopK,
    TopP,
    WeightDecay,
    Workers,
    model_options,
    models_of,
    say,
    square,
)
from training.settings import AnalysisConfig, BuildConfig, CollectConfig, FitConfig


@dataclass(frozen=True, kw_only=True)
class BuildOptions(Configuration):
    """Options of ``acs-train build``."""

    command = "build"
    model: Model
    out: Annotated[Path, typer.Option(help="Folder for the files; in a model folder they become its defaults.")]
    coco: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a data set: COCO, Objects365, LVIS, YOLO, Pascal VOC, Open Images, acs-train synth. Its "
            "training side alone is used."
        ),
    ] = None
    train: Annotated[Path | None, typer.Option(help="Annotations to collect, fit and analyse on.")] = None
    calibration: Annotated[
        Path | None,
        typer.Option(help="Annotations of other images, to calibrate on; default: images that are not trained on."),
    ] = None
    train_images: Images = None
    calibration_images: Images = None
    phrases: Phrases = None
    work: Annotated[Path, typer.Option(help="Folder for the collections; kept, so that a stopped run resumes.")] = Path(
        "work"
    )
    size: Sizes = (Size.SMALL,)
    objects: Count = Objects.SINGLE
    limit: Annotated[int, typer.Option(help="Maximum number of training pairs.", min=1)] = 5000
    calibration_limit: Annotated[
        int, typer.Option(help="Maximum number of calibration pairs about objects that are there.", min=50)
    ] = 1000
    absent_share: AbsentShare = 0.5
    seed: Annotated[
        int, typer.Option(help="Seed of the drawn pairs, of the first pair, of the split and of the weights.", min=0)
    ] = 0
    top_p: TopP = CollectConfig.top_p
    top_k: TopK = CollectConfig.top_k
    epochs: Epochs = FitConfig.epochs
    learning_rate: LearningRate = FitConfig.learning_rate
    weight_decay: WeightDecay = FitConfig.weight_decay
    batch: BatchSize = FitConfig.batch
    patience: Patience = FitConfig.patience
    workers: Workers = None
    input: Input = DEFAULT_TRANSFORM
    heads: Heads = AnalysisConfig.heads
    high_iou: HighIou = AnalysisConfig.high_iou
    low_iou: LowIou = AnalysisConfig.low_iou
    layers: Layers = AnalysisConfig.layers
    all_layers: AllLayers = not AnalysisConfig.restrict
    map_side: MapSide = None
    ray: Ray = None
    actors: Actors = None
    ray_retries: RayRetries = RAY_RETRIES
    ray_timeout: RayTimeout = RAY_TIMEOUT
    revision: Revision = None
    max_image_tokens: MaxImageTokens = None
    coordinate_frame: Frame = DEFAULT_FRAME
    dtype: DtypeOption = DEFAULT_DTYPE
    quantization: QuantizationOption = DEFAULT_QUANTIZATION
    device: Device = AUTO


def build(options: BuildOptions) -> None:
    """Make regressor, joint model, head file and calibrations for an LVLM: collect, fit, analyse and calibrate."""
    o, out = options, options.out
    check_model_name(o.model)
    train, calibration = sides_of(o.coco, (o.train, o.train_images), (o.calibration, o.calibration_images), o.phrases)
    from training.fitting import build as job  # late: torch takes seconds
    from training.fitting.artifacts import HEADS, files_folder

    with recorded(o, files_folder(out, o.full_command, [o.run_file])):
        if calibration is None:
            pairs, fresh = both_sides_of(train, o.size, o.objects, o.limit, o.calibration_limit, o.seed, o.absent_share)
        else:
            pairs = pairs_of(train, o.size, o.objects, o.limit, o.seed)
            fresh = pairs_of(calibration, o.size, o.objects, o.calibration_limit, o.seed, o.absent_share)
            fresh = without_trained(pairs, fresh, train.name == calibration.name)
        lvlm, run = models_of(**model_options(o))
        names = train.name, (calibration or train).name
        config = BuildConfig(
            CollectConfig(top_p=o.top_p, top_k=o.top_k, seed=o.seed, map_size=square(o.map_side)),
            FitConfig(
                learning_rate=o.learning_rate,
                weight_decay=o.weight_decay,
                batch=o.batch,
                epochs=o.epochs,
                patience=o.patience,
                input_transform=str(o.input),
                seed=o.seed,
            ),
            AnalysisConfig(o.heads, o.high_iou, o.low_iou, o.layers, not o.all_layers, seed=o.seed),
        )
        absent = sum(not pair.truth for pair in fresh)
        made_by = job.describe(
            config,
            f"{len(pairs)} pairs of {names[0]}",
            f"{len(fresh)} pairs of other images of {names[1]}, {absent} of them about absent objects,",
        )
        command = f"acs-train {shlex.join(sys.argv[1:])}"
        with bar() as move:
            job.build(
                lvlm,
                pairs,
                fresh,
                o.work,
                out,
                made_by,
                config,
                say,
                move,
                o.model,
                command,
                names,
                run,
                o.device,
                o.workers,
            )
    heads = "head file, " if (out / HEADS).is_file() else ""
    typer.echo(f"wrote regressor, joint model, {heads}calibrations and a model card into {out}")
