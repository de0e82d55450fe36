"""The commands of ``acs-train`` that make the files for an LVLM."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from training.console import bar, err
from training.errors import DataError

if TYPE_CHECKING:
    from acs_core.lvlm.base import LVLM
    from training.collect import PartRunner
    from training.pairs import Pair


class Size(StrEnum):
    """Share of the image's area that the objects of a pair cover."""

    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"


class Objects(StrEnum):
    """How many objects of the category a pair's image shows."""

    SINGLE = "single"
    SEVERAL = "several"
    ANY = "any"


class Transform(StrEnum):
    """What is done to the maps before the first layer."""

    LOG = "log_cells"
    CELLS = "cells"
    RAW = "raw"


Model = Annotated[str, typer.Option(help="Name of an embedded model, a model folder, or a hub id.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")]
Data = Annotated[Path, typer.Option(help="COCO-style instances.json.")]
Images = Annotated[Path | None, typer.Option(help="Picture folder; default: images/ beside its annotations.")]
Out = Annotated[Path, typer.Option(help="Folder to write into; made if missing.")]
Store = Annotated[Path, typer.Option(help="Folder that `acs-train collect` wrote.")]
Sizes = Annotated[
    list[Size],
    typer.Option("--size", help="Size of the objects: small 0.1-1 %, medium 1-5 %, large above 5 %. May be repeated."),
]
Count = Annotated[Objects, typer.Option("--objects", help="Pairs with one object of the category, several, or any.")]
MapSide = Annotated[int | None, typer.Option(help="Resize maps to a square of so many cells.", min=1)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda.")]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray", metavar="ADDRESS", help="Collect on a Ray cluster: its address, auto, or local for this machine alone."
    ),
]
Actors = Annotated[int | None, typer.Option(help="Models at a time with --ray; default: one a GPU.", min=1)]
Epochs = Annotated[int, typer.Option(help="Of the regressor, at most (appendix A.2: 100).", min=1)]
Input = Annotated[Transform, typer.Option("--input", help="What is done to the maps first; see docs/training.md.")]
Heads = Annotated[int, typer.Option(help="Heads per coordinate (section 4.4).", min=1)]
HighIou = Annotated[float, typer.Option(help="IoU above which a box is in the high group.", min=0, max=1)]
LowIou = Annotated[float, typer.Option(help="IoU up to which a box is in the low group.", min=0, max=1)]
Layers = Annotated[int | None, typer.Option(help="How many layers are critical; default: a third.", min=1)]
AllLayers = Annotated[bool, typer.Option("--all-layers", help="Choose heads in all layers, not only critical ones.")]


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
    seed: Annotated[int, typer.Option(help="Seed of the draw and of the first pair.")] = 0,
    ray: Ray = None,
    actors: Actors = None,
    revision: Revision = None,
    device: Device = "auto",
) -> None:
    """Sample answers and keep every box with its attention and IoU (appendix A). Resumes where it was stopped."""
    from training import collect as job

    pairs = _pairs(data, images, size, objects, limit, seed)
    lvlm, run = _models(model, revision, device, ray, actors)
    config = job.CollectConfig(samples=samples, temperature=temperature, seed=seed, map_size=_square(map_side))
    with bar() as move:
        report = job.collect(lvlm, pairs, out, config, lambda d, t: move("collect", d, t), None, _name(data), run)
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
    """Fit the attention-IoU regressor to a collection (appendix A.2). Resumes where it was stopped."""
    from training.fit import FitConfig
    from training.steps import REGRESSOR, fit_step
    from training.store import read_store

    data = read_store(store)
    config = FitConfig(epochs=epochs, input_transform=str(input_transform), validation_share=share, seed=seed)
    others = {str(path): read_store(path) for path in evaluate}
    made_by = f"acs-train fit: {len(data.pairs)} pairs of {data.manifest.get('data') or store.name}"
    with bar() as move:
        shown = partial(_epoch, move, epochs)
        fit_step(data, out, config, made_by, others, work or store.parent / "fit", _say, shown, device, workers)
    typer.echo(f"wrote {out / REGRESSOR}")


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
    from training.pairs import choose_pairs
    from training.steps import HEADS, analyze_step, held_candidates, read_regressor
    from training.store import read_store

    collection = read_store(store)
    regressor, _ = read_regressor(out, collection)
    index = held_candidates(out, collection)
    pairs = choose_pairs(read_coco(data, images), tuple(Size), "any") if data else []
    config = AnalysisConfig(heads, high_iou, low_iou, layers, not all_layers, draws=draws)
    made_by = f"acs-train analyze: {len(index)} held-out candidates of {collection.manifest.get('data') or store.name}"
    with bar() as move:
        analyze_step(
            collection, regressor, index, out, config, made_by, pairs, _say, lambda d, t: move("analyse", d, t)
        )
    typer.echo(f"wrote {out / HEADS}")


def calibrate(
    store: Annotated[Path, typer.Option(help="Collection of other images, sampled as at run time (tau = 0.5).")],
    out: Annotated[Path, typer.Option(help="Folder with regressor or head file; the calibrations go there.")],
) -> None:
    """Turn confidences into probabilities and expected IoU (isotonic regression)."""
    from training.steps import calibrate_step, made_selectors
    from training.store import read_store

    data = read_store(store)
    made_by = f"acs-train calibrate: {len(data.pairs)} pairs of {data.manifest.get('data') or store.name}"
    selectors = made_selectors(out, data)
    calibrate_step(data, selectors, out, made_by, _say)
    typer.echo(f"wrote {', '.join(f'calibration-{s.name}.json' for s in selectors)} into {out}")


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
    """Make regressor, head file and calibrations for an LVLM: collect, fit, analyse, calibrate."""
    from training import build as job
    from training.analyze import AnalysisConfig
    from training.collect import CollectConfig
    from training.fit import FitConfig

    (train, train_images), (calibration, calibration_images) = _sources(
        coco, (train, train_images), (calibration, calibration_images)
    )
    pairs = _pairs(train, train_images, size, objects, limit, 0)
    fresh = _pairs(calibration, calibration_images, size, objects, calibration_limit, 0)
    lvlm, run = _models(model, revision, device, ray, actors)
    names = _name(train), _name(calibration)
    config = job.BuildConfig(
        CollectConfig(map_size=_square(map_side)),
        FitConfig(epochs=epochs, input_transform=str(input_transform)),
        AnalysisConfig(heads, high_iou, low_iou, layers, not all_layers),
    )
    made_by = job.describe(config, f"{len(pairs)} pairs of {names[0]}", f"{len(fresh)} pairs of {names[1]}")
    command = f"acs-train {shlex.join(sys.argv[1:])}"
    with bar() as move:
        job.build(lvlm, pairs, fresh, work, out, made_by, config, _say, move, model, command, names, run, device)
    typer.echo(f"wrote regressor, head file, calibrations and a model card into {out}")


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

    chosen = _pairs(data, images, [Size.SMALL], Objects.SINGLE, pairs, 0)
    lvlm, _ = _models(model, None, device, None, None)
    with bar() as move:
        found = {
            "model": check_on_model(lvlm, chosen, _square(map_side), lambda d, t: move("ask", d, t)),
            "made-up maps of the 7B shape": check_shape(lambda d, t: move("7B shape", d, t)),
        }
    for name, numbers in found.items():
        typer.echo(f"{name}:")
        for key, value in numbers.items():
            typer.echo(f"  {key}: {value}")
    if json_file:
        json_file.write_text(json.dumps(found, indent=1) + "\n")


def _sources(
    coco: Path | None, train: tuple[Path | None, Path | None], calibration: tuple[Path | None, Path | None]
) -> tuple[tuple[Path, Path | None], tuple[Path, Path | None]]:
    """Annotations and pictures of both sides, from --coco or named one by one."""
    from training.build import find_coco

    if coco and (train[0] or calibration[0]):
        raise typer.BadParameter("says where everything is; leave --train and --calibration away", param_hint="--coco")
    if coco:
        return find_coco(coco)
    if train[0] is None or calibration[0] is None:
        raise typer.BadParameter("name the data: --coco FOLDER, or both --train and --calibration", param_hint="--coco")
    return (train[0], train[1]), (calibration[0], calibration[1])


def _pairs(
    data: Path, images: Path | None, sizes: Sequence[Size], objects: Objects, limit: int | None, seed: int
) -> list[Pair]:
    """The pairs to ask; what is wrong with the annotations is said."""
    from training.coco import read_coco
    from training.pairs import choose_pairs

    content = read_coco(data, images)
    for line in content.problems.lines():
        err.print(f"{data.name}: left out {line}", style="yellow", markup=False)
    return choose_pairs(content, [str(s) for s in sizes], objects.value, limit, seed)


def _models(
    model: str, revision: str | None, device: str, ray: str | None, actors: int | None
) -> tuple[LVLM, PartRunner | None]:
    """The loaded model, and with ``--ray`` what collects elsewhere. The driver's own model stays on the CPU then: it is
    only there to say what it is."""
    from acs_core.assets import resolve_model
    from acs_core.lvlm import load_lvlm

    name = resolve_model(model)
    if ray is None:
        if actors:
            raise typer.BadParameter("goes with --ray", param_hint="--actors")
        return load_lvlm(name, revision=revision, device=device), None
    if find_spec("ray") is None:
        raise DataError('--ray needs ray: pip install "ray[data]"')
    from training.collect_ray import runner
    from training.ray_pool import RayConfig

    lvlm = load_lvlm(name, revision=revision, device="cpu")
    load = partial(load_lvlm, name, revision=lvlm.revision or revision, device=device)
    return lvlm, runner(load, RayConfig(ray, actors, gpus=0 if device == "cpu" else None))


def _name(annotations: Path) -> str:
    return f"{annotations.resolve().parent.name}/{annotations.name}"


def _square(side: int | None) -> tuple[int, int] | None:
    return (side, side) if side else None


def _say(text: str) -> None:
    err.print(text, markup=False, highlight=False)


def _epoch(move: Callable[[str, int, int], None], epochs: int, epoch: int, loss: float, held: float) -> None:
    move("fit", epoch, epochs)
    if epoch % 10 == 0 or epoch == 1:
        _say(f"epoch {epoch}: mean squared error {loss:.4f}, on held-out images {held:.4f}")
