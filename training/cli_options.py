"""What the commands of ``acs-train`` that make or judge files share: their options, and what these stand for."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from training.console import err
from training.errors import DataError

if TYPE_CHECKING:
    from acs_core.lvlm.base import LVLM
    from training.collect import PartRunner
    from training.pairs import Pair
    from training.store import Collection


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


class Step(StrEnum):
    """Which position's attention is kept for a coordinate."""

    EMITTING = "emitting"
    CONSUMING = "consuming"


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
StepOption = Annotated[
    Step,
    typer.Option("--step", help="Whose attention: of the position that emits a coordinate's first token, or reads it."),
]
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


def sources_of(
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


def pairs_of(
    data: Path, images: Path | None, sizes: Sequence[Size], objects: Objects, limit: int | None, seed: int
) -> list[Pair]:
    """The pairs to ask; what is wrong with the annotations is said."""
    from training.coco import read_coco
    from training.pairs import choose_pairs

    content = read_coco(data, images)
    for line in content.problems.lines():
        err.print(f"{data.name}: left out {line}", style="yellow", markup=False)
    return choose_pairs(content, [str(s) for s in sizes], objects.value, limit, seed)


def models_of(
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


def data_name(annotations: Path) -> str:
    """The annotation file as collections record it: "val/instances.json"."""
    return f"{annotations.resolve().parent.name}/{annotations.name}"


def origin(data: Collection, store: Path) -> str:
    """How files name the collection they are made of: by its annotation file, and the step if it is not the usual."""
    step = data.manifest.get("step")
    return f"{data.manifest.get('data') or store.name}" + (f", attention of the {step} step" if step else "")


def square(side: int | None) -> tuple[int, int] | None:
    """The size of square maps with so many cells a side."""
    return (side, side) if side else None


def say(text: str) -> None:
    """One line for people, beside what a command prints."""
    err.print(text, markup=False, highlight=False)
