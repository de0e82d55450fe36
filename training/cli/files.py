"""Commands of ``acs-train`` that make the files for an LVLM one at a time: collect, fit, analyze, calibrate,
check-store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from acs_core.artifacts.model_name import check_model_name
from acs_core.artifacts.registry import calibration_file
from acs_core.types import MAX_SAMPLES, MAX_TEMPERATURE
from training.cli.build import BuildOptions
from training.cli.config import Configuration, recorded
from training.cli.console import bar, err
from training.cli.data import pairs_of, pairs_of_store
from training.cli.options import (
    AUTO,
    DEFAULT_DTYPE,
    DEFAULT_FRAME,
    DEFAULT_QUANTIZATION,
    DEFAULT_STEP,
    DEFAULT_TRANSFORM,
    RAY_RETRIES,
    RAY_TIMEOUT,
    AbsentShare,
    Actors,
    AllLayers,
    BatchSize,
    Count,
    Data,
    Device,
    DtypeOption,
    Epochs,
    Frame,
    Heads,
    HighIou,
    Images,
    Input,
    Json,
    Layers,
    LearningRate,
    LoggerName,
    LowIou,
    MapSide,
    MaxImageTokens,
    Model,
    Objects,
    Out,
    Patience,
    Phrases,
    QuantizationOption,
    Ray,
    RayRetries,
    RayTimeout,
    Revision,
    Size,
    Sizes,
    Split,
    SplitOption,
    StepOption,
    Store,
    TopK,
    TopP,
    WeightDecay,
    Workers,
    model_options,
    models_of,
    origin,
    say,
    square,
)
from training.settings import RUN_FILE, AnalysisConfig, CollectConfig, FitConfig

if TYPE_CHECKING:
    from acs_core.selection.registry import Selector
    from training.collection.offline_selection import Call


@dataclass(frozen=True, kw_only=True)
class CollectOptions(Configuration):
    """Options of ``acs-train collect``."""

    command = "collect"
    model: Model
    data: Data
    out: Out
    images: Images = None
    split: SplitOption = Split.TRAIN
    phrases: Phrases = None
    size: Sizes = (Size.SMALL,)
    objects: Count = Objects.SINGLE
    samples: Annotated[int, typer.Option(help="Responses per pair.", min=1, max=MAX_SAMPLES)] = CollectConfig.samples
    temperature: Annotated[float, typer.Option(help="Sampling temperature tau.", min=0.01, max=MAX_TEMPERATURE)] = (
        CollectConfig.temperature
    )
    top_p: TopP = CollectConfig.top_p
    top_k: TopK = CollectConfig.top_k
    limit: Annotated[int | None, typer.Option(help="Maximum number of pairs, drawn with --seed.", min=1)] = None
    absent_share: AbsentShare = 0.0
    map_side: MapSide = None
    step: StepOption = DEFAULT_STEP
    seed: Annotated[int, typer.Option(help="Seed of the draw and of the first pair.", min=0)] = CollectConfig.seed
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


def collect(options: CollectOptions) -> None:
    """Sample responses and keep every box with its attention and IoU (appendix A). A stopped run is resumed."""
    check_model_name(options.model)
    # Late: torch takes seconds.
    from acs_core.output_folder import OutputFolder
    from training.collection import collect as job
    from training.collection.store import holds_store
    from training.data.formats import locate

    o, out = options, options.out
    taken = OutputFolder(out, o.full_command, replaces=[o.run_file], adopts=holds_store)
    with recorded(o, taken):
        source = locate(o.data, o.images, o.split.value, o.phrases)
        pairs = pairs_of(source, o.size, o.objects, o.limit, o.seed, o.absent_share)
        lvlm, run = models_of(**model_options(o))
        config = CollectConfig(
            samples=o.samples,
            temperature=o.temperature,
            top_p=o.top_p,
            top_k=o.top_k,
            seed=o.seed,
            map_size=square(o.map_side),
            step=o.step.value,
        )
        with bar() as move:
            report = job.collect(lvlm, pairs, out, config, partial(move, "collect"), None, source.name, run)
    for line in report.skipped:
        err.print(f"skipped: {line}", style="yellow", markup=False)
    typer.echo(f"collected {report.collected} pairs, {report.resumed} were there, {len(report.skipped)} skipped: {out}")


@dataclass(frozen=True, kw_only=True)
class FitOptions(Configuration):
    """Options of ``acs-train fit``."""

    command = "fit"
    store: Store
    out: Out
    evaluate: Annotated[
        tuple[Path, ...],
        typer.Option(help="Further collection to evaluate on, for example of another temperature. May be repeated."),
    ] = ()
    work: Annotated[Path | None, typer.Option(help="Folder for checkpoints; default: fit/ beside the store.")] = None
    epochs: Epochs = FitConfig.epochs
    learning_rate: LearningRate = FitConfig.learning_rate
    weight_decay: WeightDecay = FitConfig.weight_decay
    batch: BatchSize = FitConfig.batch
    patience: Patience = FitConfig.patience
    logger: Annotated[
        tuple[LoggerName, ...],
        typer.Option(help="Also log each epoch with this logger of Lightning, into --logs. May be repeated."),
    ] = ()
    logs: Annotated[Path | None, typer.Option(help="Folder of the loggers; default: logs/ beside the store.")] = None
    input: Input = DEFAULT_TRANSFORM
    share: Annotated[float, typer.Option(help="Share of the images to hold out.", min=0.01, max=0.9)] = (
        FitConfig.validation_share
    )
    workers: Workers = None
    seed: Annotated[int, typer.Option(help="Seed of the split, the weights and the order.", min=0)] = FitConfig.seed
    device: Device = AUTO


def fit(options: FitOptions) -> None:
    """Fit the attention-IoU regressor (appendix A.2), the box regressor and the joint model. A stopped run is
    resumed."""
    from training.collection.store import read_store
    from training.fitting.artifacts import BOX, JOINT, REGRESSOR, files_folder
    from training.fitting.loggers import make_loggers
    from training.fitting.steps import FIT_FILES, fit_step

    o, store, out = options, options.store, options.out
    data = read_store(store)
    config = FitConfig(
        learning_rate=o.learning_rate,
        weight_decay=o.weight_decay,
        batch=o.batch,
        epochs=o.epochs,
        patience=o.patience,
        validation_share=o.share,
        input_transform=str(o.input),
        seed=o.seed,
    )
    loggers = make_loggers([str(name) for name in o.logger], o.logs or store.parent / "logs", data.maps.files)
    others = {str(path): read_store(path) for path in o.evaluate}
    made_by = f"acs-train fit: {len(data.pairs)} pairs of {origin(data, store)}"
    taken = files_folder(out, o.full_command, [*FIT_FILES, o.run_file], [store, *o.evaluate])
    with bar() as move:
        shown = partial(_epoch, move, o.epochs, "fit")
        boxed = partial(_epoch, move, o.epochs, "fit with the box")
        read = partial(move, "read maps")
        with recorded(o, taken), taken as folder, folder.stage(*FIT_FILES, *_described_by(o)) as staged:
            kept = o.work or store.parent / "fit"
            fit_step(data, staged, config, made_by, others, kept, say, shown, o.device, o.workers, read, loggers, boxed)
    typer.echo(f"wrote {out / REGRESSOR}, {out / BOX} and {out / JOINT}")


@dataclass(frozen=True, kw_only=True)
class AnalyzeOptions(Configuration):
    """Options of ``acs-train analyze``."""

    command = "analyze"
    store: Store
    out: Annotated[Path, typer.Option(help="Folder with the regressor of `acs-train fit`; the head file goes there.")]
    data: Annotated[
        Path | None, typer.Option(help="Annotations of the collection, for figures of attention over images.")
    ] = None
    images: Images = None
    split: SplitOption = Split.TRAIN
    phrases: Phrases = None
    heads: Heads = AnalysisConfig.heads
    high_iou: HighIou = AnalysisConfig.high_iou
    low_iou: LowIou = AnalysisConfig.low_iou
    layers: Layers = AnalysisConfig.layers
    all_layers: AllLayers = not AnalysisConfig.restrict
    draws: Annotated[int, typer.Option(help="Bootstrap draws.", min=10, max=1_000_000)] = AnalysisConfig.draws


def analyze(options: AnalyzeOptions) -> None:
    """Rank layers and heads by importance (section 4.3), and write a head file, the layers for attention-in-box, and
    figures."""
    from training.collection.store import read_store
    from training.data.formats import locate
    from training.fitting.artifacts import HEADS, files_folder, held_candidates, read_regressor
    from training.fitting.box_layers import BOX_LAYERS_STEP, box_layers_step
    from training.fitting.steps import ANALYZE_STEP, analyze_step

    o, store, out = options, options.store, options.out
    collection = read_store(store)
    regressor, _ = read_regressor(out, collection)
    index = held_candidates(out, collection)
    source = locate(o.data, o.images, o.split.value, o.phrases) if o.data else None
    pairs = pairs_of_store(source, collection) if source else []
    config = AnalysisConfig(o.heads, o.high_iou, o.low_iou, o.layers, not o.all_layers, draws=o.draws)
    made_by = f"acs-train analyze: {len(index)} held-out candidates of {origin(collection, store)}"
    made = (*ANALYZE_STEP.files, *BOX_LAYERS_STEP.files)
    taken = files_folder(out, o.full_command, [*made, o.run_file], [store, o.data])
    with recorded(o, taken), taken as folder, folder.stage(*made, *_described_by(o)) as staged, bar() as move:
        shown = partial(move, "analyse")
        analyze_step(collection, regressor, index, staged, config, made_by, pairs, say, shown)
        box_layers_step(collection, staged, made_by, say, partial(move, "box layers"))
    typer.echo(f"wrote {out / HEADS} and {out / BOX_LAYERS_STEP.files[0]}")


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions(Configuration):
    """Options of ``acs-train calibrate``."""

    command = "calibrate"
    store: Annotated[Path, typer.Option(help="Collection of other images, sampled as at run time (tau = 0.5).")]
    out: Annotated[Path, typer.Option(help="Folder with regressor or head file; the calibrations go there.")]
    second_look: Annotated[
        tuple[str, ...],
        typer.Option(help="Selector to calibrate also for second looks, for example acs-fusion. Repeatable."),
    ] = ()
    presence_probe: Annotated[
        bool,
        typer.Option(
            help="Fit a probe of the model's hidden state for 'is it there', as one more feature of the scores."
        ),
    ] = False
    model: Annotated[str | None, typer.Option(help="Model of the collection, for --second-look.")] = None
    data: Annotated[Path | None, typer.Option(help="Annotations of the collection, for --second-look.")] = None
    images: Images = None
    split: SplitOption = Split.VAL
    phrases: Phrases = None
    revision: Revision = None
    device: Device = AUTO


def calibrate(options: CalibrateOptions) -> None:
    """Fit the curves from confidence to probability and expected IoU (isotonic regression)."""
    from training.collection.store import read_responses, read_store
    from training.fitting.artifacts import files_folder, made_selectors
    from training.fitting.steps import CALIBRATE_FILES, calibrate_step

    o, store, out = options, options.store, options.out
    collection = read_store(store)
    made_by = f"acs-train calibrate: {len(collection.pairs)} pairs of {origin(collection, store)}"
    selectors = {selector.name: selector for selector in made_selectors(out, collection)}
    again: dict[str, list[Call]] = {}
    if o.second_look:
        if unknown := [name for name in o.second_look if name not in selectors]:
            raise typer.BadParameter(
                f"{', '.join(unknown)}: choose of those with files in {out}, {', '.join(selectors)}",
                param_hint="--second-look",
            )
        if o.model is None or o.data is None:
            raise typer.BadParameter("needs --model and --data, to look again", param_hint="--second-look")
    taken = files_folder(out, o.full_command, [*CALIBRATE_FILES, o.run_file], [store, o.data])
    with recorded(o, taken), taken as folder:
        if o.second_look and o.model is not None and o.data is not None:
            again = _look_again(o, [selectors[name] for name in o.second_look], o.model, o.data)
        with folder.stage(*CALIBRATE_FILES, *_described_by(o)) as staged:
            answers = read_responses(store)
            calibrate_step(
                collection, tuple(selectors.values()), staged, made_by, say, again, answers, o.presence_probe
            )
    files = [calibration_file(name) for name in selectors] + [calibration_file(name, True) for name in again]
    typer.echo(f"wrote {', '.join(files)} into {out}")


def _look_again(options: CalibrateOptions, selectors: list[Selector], model: str, data: Path) -> dict[str, list[Call]]:
    """Return the calls of ``model`` with a second look, for each of ``selectors``. The second looks are collected into
    folders beside the store."""
    from acs_core.artifacts.identity import ModelIdentity
    from training.collection.job import picture_options_of
    from training.collection.second_look import look_again
    from training.collection.store import read_store
    from training.data.formats import locate
    from training.fitting.artifacts import check_same_model

    store = options.store
    collection = read_store(store)
    lvlm, _ = models_of(model, options.revision, options.device, **picture_options_of(collection.manifest))
    check_same_model(collection, store, ModelIdentity.of(lvlm), f"--model {model}")
    source = locate(data, options.images, options.split.value, options.phrases)
    pairs = {pair.key: pair for pair in pairs_of_store(source, collection)}
    found = {}
    with bar() as move:
        for selector in selectors:
            folder = store.parent / f"{store.name}-second-look-{selector.name}"
            progress = partial(move, f"second look of {selector.name}")
            found[selector.name] = look_again(lvlm, selector, store, pairs, folder, progress=progress)
    return found


@dataclass(frozen=True, kw_only=True)
class CheckStoreOptions(Configuration):
    """Options of ``acs-train check-store``."""

    command = "check-store"
    store: Annotated[
        Path | None, typer.Option(help="Collection to verify: the digest of every file, and every value.")
    ] = None
    model: Annotated[
        str | None, typer.Option(help="Model to measure the quantisation with: embedded, a folder, or a hub id.")
    ] = None
    data: Annotated[
        Path | None, typer.Option(help="Annotations to sample --model on: a file, or the folder of a data set.")
    ] = None
    images: Images = None
    pairs: Annotated[int, typer.Option(help="Number of pairs to sample.", min=2)] = 30
    map_side: MapSide = None
    device: Device = AUTO
    json: Json = None


def check_store(options: CheckStoreOptions) -> None:
    """Verify a collection (--store), or measure the effects of quantisation (--model and --data): size, entropy ranks,
    regressor scores and reading speed."""
    from acs_core.output import write_json

    o = options
    if o.store is None and o.model is None:
        raise typer.BadParameter(
            "name a collection to verify, or --model and --data to measure with", param_hint="--store"
        )
    if (o.model is None) != (o.data is None):
        raise typer.BadParameter("--model and --data go together", param_hint="--model")
    found: dict[str, Any] = {}
    with recorded(o, None, o.json):
        with bar() as move:
            if o.store is not None:
                from training.collection.store_verify import verify_store

                found[str(o.store)] = verify_store(o.store, partial(move, "verify")).to_dict()
            if o.model is not None and o.data is not None:
                from training.collection.store_check import check_on_model, check_shape
                from training.data.formats import locate

                chosen = pairs_of(locate(o.data, o.images), [Size.SMALL], Objects.SINGLE, o.pairs, 0)
                lvlm, _ = models_of(o.model, None, o.device)
                found["model"] = check_on_model(lvlm, chosen, square(o.map_side), partial(move, "ask"))
                found["made-up maps of the 7B shape"] = check_shape(partial(move, "7B shape"))
        for name, numbers in found.items():
            typer.echo(f"{name}:")
            for key, value in numbers.items():
                typer.echo(f"  {key}: {value}")
        if o.json:
            write_json(o.json, found, o.full_command)


def _described_by(options: Configuration) -> tuple[str, str]:
    """Return the run files that describe what the command replaces: its own and that of ``acs-train build``."""
    return options.run_file, f"{BuildOptions.command}{RUN_FILE}"


def _epoch(
    move: Callable[[str, int, int], None], epochs: int, stage: str, epoch: int, loss: float, held: float
) -> None:
    move(stage, epoch, epochs)
    if epoch % 10 == 0 or epoch == 1:
        say(f"{stage}, epoch {epoch}: mean squared error {loss:.4f}, on held-out images {held:.4f}")
