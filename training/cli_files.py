"""The commands of ``acs-train`` that make the files for an LVLM, one at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from acs_core.assets import calibration_file
from training.cli_options import (
    Actors,
    AllLayers,
    Count,
    Data,
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
    Out,
    Ray,
    Revision,
    Size,
    Sizes,
    Step,
    StepOption,
    Store,
    Transform,
    data_name,
    models_of,
    origin,
    pairs_of,
    say,
    square,
)
from training.console import bar, err

if TYPE_CHECKING:
    from acs_core.selection import Selector
    from training.offline_choice import Call


def collect(
    model: Model,
    data: Data,
    out: Out,
    images: Images = None,
    size: Sizes = [Size.SMALL],  # noqa: B006 - typer wants a list
    objects: Count = Objects.SINGLE,
    samples: Annotated[int, typer.Option(help="Responses per pair.", min=1)] = 10,
    temperature: Annotated[float, typer.Option(help="Sampling temperature tau.", min=0.01)] = 1.0,
    limit: Annotated[int | None, typer.Option(help="Only so many pairs, drawn by --seed.", min=1)] = None,
    map_side: MapSide = None,
    step: StepOption = Step.EMITTING,
    seed: Annotated[int, typer.Option(help="Seed of the draw and of the first pair.")] = 0,
    ray: Ray = None,
    actors: Actors = None,
    revision: Revision = None,
    device: Device = "auto",
) -> None:
    """Sample answers and keep every box with its attention and IoU (appendix A). Resumes where it was stopped."""
    from training import collect as job
    from training.collect_job import CollectConfig

    pairs = pairs_of(data, images, size, objects, limit, seed)
    lvlm, run = models_of(model, revision, device, ray, actors)
    config = CollectConfig(
        samples=samples, temperature=temperature, seed=seed, map_size=square(map_side), step=step.value
    )
    with bar() as move:
        report = job.collect(lvlm, pairs, out, config, lambda d, t: move("collect", d, t), None, data_name(data), run)
    for line in report.skipped:
        err.print(f"skipped: {line}", style="yellow", markup=False)
    typer.echo(f"collected {report.collected} pairs, {report.resumed} were there, {len(report.skipped)} skipped: {out}")


def fit(
    store: Store,
    out: Out,
    evaluate: Annotated[
        list[Path],
        typer.Option(help="Another collection to judge it on, say of another temperature. May be repeated."),
    ] = [],  # noqa: B006
    work: Annotated[Path | None, typer.Option(help="Folder for checkpoints; default: fit/ beside the store.")] = None,
    epochs: Epochs = 100,
    input_transform: Input = Transform.LOG,
    share: Annotated[float, typer.Option(help="Share of the images that is held out.", min=0.01, max=0.9)] = 0.2,
    workers: Annotated[int, typer.Option(help="Processes that read maps ahead.", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="Of the split, the weights and the order.")] = 0,
    device: Device = "auto",
) -> None:
    """Fit the attention-IoU regressor (appendix A.2) and the joint quality. Resumes where it was stopped."""
    from training.fit import FitConfig
    from training.made_files import JOINT, REGRESSOR
    from training.steps import fit_step
    from training.store import read_store

    data = read_store(store)
    config = FitConfig(epochs=epochs, input_transform=str(input_transform), validation_share=share, seed=seed)
    others = {str(path): read_store(path) for path in evaluate}
    made_by = f"acs-train fit: {len(data.pairs)} pairs of {origin(data, store)}"
    with bar() as move:
        shown = partial(_epoch, move, epochs)
        folder = work or store.parent / "fit"
        read = partial(move, "read maps")
        fit_step(data, out, config, made_by, others, folder, say, shown, device, workers, read)
    typer.echo(f"wrote {out / REGRESSOR} and {out / JOINT}")


def analyze(
    store: Store,
    out: Annotated[Path, typer.Option(help="Folder with the regressor of `acs-train fit`; the head file goes there.")],
    data: Annotated[Path | None, typer.Option(help="The annotations, to draw attention over pictures.")] = None,
    images: Images = None,
    heads: Heads = 3,
    high_iou: HighIou = 0.7,
    low_iou: LowIou = 0.3,
    layers: Layers = None,
    all_layers: AllLayers = False,
    draws: Annotated[int, typer.Option(help="Bootstrap draws.", min=10)] = 200,
) -> None:
    """Find the layers and heads that matter (section 4.3), and write a head file and figures."""
    from training.analyze import AnalysisConfig
    from training.coco import read_coco
    from training.made_files import HEADS, held_candidates, read_regressor
    from training.pairs import choose_pairs
    from training.steps import analyze_step
    from training.store import read_store

    collection = read_store(store)
    regressor, _ = read_regressor(out, collection)
    index = held_candidates(out, collection)
    pairs = choose_pairs(read_coco(data, images), tuple(Size), "any") if data else []
    config = AnalysisConfig(heads, high_iou, low_iou, layers, not all_layers, draws=draws)
    made_by = f"acs-train analyze: {len(index)} held-out candidates of {origin(collection, store)}"
    with bar() as move:
        analyze_step(collection, regressor, index, out, config, made_by, pairs, say, lambda d, t: move("analyse", d, t))
    typer.echo(f"wrote {out / HEADS}")


def calibrate(
    store: Annotated[Path, typer.Option(help="Collection of other images, sampled as at run time (tau = 0.5).")],
    out: Annotated[Path, typer.Option(help="Folder with regressor or head file; the calibrations go there.")],
    second_look: Annotated[
        list[str],
        typer.Option(help="Selector to calibrate for answers with a second look too, as acs-fusion. Repeatable."),
    ] = [],  # noqa: B006
    model: Annotated[str | None, typer.Option(help="The model of the collection, to look again with.")] = None,
    data: Annotated[Path | None, typer.Option(help="The annotations of the collection, to look again.")] = None,
    images: Images = None,
    revision: Revision = None,
    device: Device = "auto",
) -> None:
    """Turn confidences into probabilities and expected IoU (isotonic regression)."""
    from training.made_files import made_selectors
    from training.steps import calibrate_step
    from training.store import read_store

    collection = read_store(store)
    made_by = f"acs-train calibrate: {len(collection.pairs)} pairs of {origin(collection, store)}"
    selectors = {selector.name: selector for selector in made_selectors(out, collection)}
    again: dict[str, list[Call]] = {}
    if second_look:
        if unknown := [name for name in second_look if name not in selectors]:
            raise typer.BadParameter(
                f"{', '.join(unknown)}: choose of those with files in {out}, {', '.join(selectors)}",
                param_hint="--second-look",
            )
        if model is None or data is None:
            raise typer.BadParameter("needs --model and --data, to look again", param_hint="--second-look")
        again = _look_again(store, [selectors[name] for name in second_look], model, data, images, revision, device)
    calibrate_step(collection, tuple(selectors.values()), out, made_by, say, again)
    files = [calibration_file(name) for name in selectors] + [calibration_file(name, True) for name in again]
    typer.echo(f"wrote {', '.join(files)} into {out}")


def _look_again(
    store: Path,
    selectors: list[Selector],
    model: str,
    data: Path,
    images: Path | None,
    revision: str | None,
    device: str,
) -> dict[str, list[Call]]:
    """The answers with a second look of each of ``selectors``; what it sees is collected beside ``store``."""
    from acs_core.identity import ModelIdentity
    from training.coco import read_coco
    from training.made_files import check_same_model
    from training.pairs import choose_pairs
    from training.second_look import look_again
    from training.store import read_store

    lvlm, _ = models_of(model, revision, device, None, None)
    check_same_model(read_store(store), store, ModelIdentity.of(lvlm), f"--model {model}")
    pairs = {pair.key: pair for pair in choose_pairs(read_coco(data, images), tuple(Size), "any")}
    found = {}
    with bar() as move:
        for selector in selectors:
            folder = store.parent / f"{store.name}-second-look-{selector.name}"
            progress = partial(move, f"second look of {selector.name}")
            found[selector.name] = look_again(lvlm, selector, store, pairs, folder, progress=progress)
    return found


def check_store(
    model: Model,
    data: Data,
    images: Images = None,
    pairs: Annotated[int, typer.Option(help="How many pairs are asked.", min=2)] = 30,
    map_side: MapSide = None,
    device: Device = "auto",
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the numbers as JSON.")] = None,
) -> None:
    """Measure what quantisation costs and saves: bytes, entropy ranks, regressor scores, reading rate."""
    from training.store_check import check_on_model, check_shape

    chosen = pairs_of(data, images, [Size.SMALL], Objects.SINGLE, pairs, 0)
    lvlm, _ = models_of(model, None, device, None, None)
    with bar() as move:
        found = {
            "model": check_on_model(lvlm, chosen, square(map_side), lambda d, t: move("ask", d, t)),
            "made-up maps of the 7B shape": check_shape(lambda d, t: move("7B shape", d, t)),
        }
    for name, numbers in found.items():
        typer.echo(f"{name}:")
        for key, value in numbers.items():
            typer.echo(f"  {key}: {value}")
    if json_file:
        json_file.write_text(json.dumps(found, indent=1) + "\n")


def _epoch(move: Callable[[str, int, int], None], epochs: int, epoch: int, loss: float, held: float) -> None:
    move("fit", epoch, epochs)
    if epoch % 10 == 0 or epoch == 1:
        say(f"epoch {epoch}: mean squared error {loss:.4f}, on held-out images {held:.4f}")
