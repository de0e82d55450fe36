"""Options shared by several commands of ``acs-train``, and functions that evaluate them."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from acs_core.output import checked_option
from acs_core.types import FAMILY_FRAME, LEAST_IMAGE_TOKENS, MAX_IMAGE_TOKENS
from training.cli.console import err
from training.errors import DataError
from training.settings import CollectConfig, FitConfig

if TYPE_CHECKING:
    from acs_core.lvlm.base import LVLM
    from training.collection.collect import PartRunner
    from training.collection.store import Collection


PICTURE_OPTIONS = ("max_image_tokens", "coordinate_frame")  # in manifests, where not the defaults of the family


class Size(StrEnum):
    """Share of the image's area that the objects of a pair cover."""

    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"


class Objects(StrEnum):
    """Number of objects of the category that a pair's image shows."""

    SINGLE = "single"
    SEVERAL = "several"
    ANY = "any"


class Split(StrEnum):
    """Side of a data set."""

    TRAIN = "train"
    VAL = "val"


class AttentionStep(StrEnum):
    """Position whose attention is kept for a coordinate."""

    EMITTING = "emitting"
    CONSUMING = "consuming"


class Transform(StrEnum):
    """Transform of the maps before the first layer."""

    LOG = "log_cells"
    CELLS = "cells"
    RAW = "raw"


class LoggerName(StrEnum):
    """Loggers of Lightning; all but the first need a package of their own."""

    CSV = "csv"
    TENSORBOARD = "tensorboard"
    WANDB = "wandb"
    MLFLOW = "mlflow"


class Dtype(StrEnum):
    """Type of the LVLM's weights and activations; "auto" is bfloat16 on a GPU, else float32."""

    AUTO = "auto"
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


class Quantization(StrEnum):
    """Quantisation of the LVLM's linear layers."""

    NONE = "none"
    EIGHT = "8bit"
    FOUR = "4bit"


class CoordinateFrame(StrEnum):
    """Frame in which the model states coordinates: :data:`acs_core.types.COORDINATE_FRAMES`."""

    FAMILY = "family"
    THOUSAND = "0-1000"
    RESIZED = "resized"
    ORIGINAL = "original"
    UNIT = "0-1"


Model = Annotated[str, typer.Option(help="Name of an embedded model, a model folder, or a hub id.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")]
MaxImageTokens = Annotated[
    int | None,
    typer.Option(
        help="Budget of image tokens of a picture; default: that of the model's family.",
        min=LEAST_IMAGE_TOKENS,
        max=MAX_IMAGE_TOKENS,
    ),
]
Frame = Annotated[
    CoordinateFrame, typer.Option(help="Frame in which the model states coordinates, where not that of its family.")
]
TopP = Annotated[float, typer.Option(help="Share of the probability that is sampled from.", min=0.001, max=1)]
TopK = Annotated[int, typer.Option(help="Number of tokens that are sampled from; 0 for all.", min=0, max=2**31 - 1)]
DtypeOption = Annotated[
    Dtype, typer.Option(help="Type of the model's weights: auto is bfloat16 on a GPU, else float32.")
]
QuantizationOption = Annotated[Quantization, typer.Option(help="Quantise the model's linear layers (bitsandbytes).")]
DEFAULT_DTYPE, DEFAULT_QUANTIZATION = Dtype.AUTO, Quantization.NONE
Data = Annotated[
    Path, typer.Option(help="Annotation file, or folder of a data set: COCO, YOLO, Pascal VOC, Open Images and others.")
]
Images = Annotated[Path | None, typer.Option(help="Image folder; default: the usual one of the format.")]
SplitOption = Annotated[Split, typer.Option(help="Side of a data set that --data holds both sides of.")]
Phrases = Annotated[
    Path | None, typer.Option(help='JSON file with the phrases to ask for categories by: {"tvmonitor": "television"}.')
]
Out = Annotated[Path, typer.Option(help="Folder to write into; created if missing.")]
Store = Annotated[Path, typer.Option(help="Folder that `acs-train collect` wrote.")]
AbsentShare = Annotated[
    float,
    typer.Option(
        help="Share of the questions that ask for what their image does not show; they are asked in addition.",
        min=0,
        max=0.9,
    ),
]
Sizes = Annotated[
    tuple[Size, ...],
    typer.Option(help="Size of the objects: small 0.1-1 %, medium 1-5 %, large above 5 %. May be repeated."),
]
Count = Annotated[Objects, typer.Option(help="Pairs with one object of the category, several, or any.")]
MapSide = Annotated[int | None, typer.Option(help="Resize maps to squares of this many cells a side.", min=1, max=4096)]
StepOption = Annotated[
    AttentionStep,
    typer.Option(help="Position whose attention is used: the one that emits a coordinate's first token, or reads it."),
]
Json = Annotated[
    Path | None, typer.Option(callback=checked_option, help="Also write what is printed into this JSON file.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda.")]
AUTO = "auto"  # of Device
DEFAULT_FRAME = CoordinateFrame(FAMILY_FRAME)
DEFAULT_STEP, DEFAULT_TRANSFORM = AttentionStep(CollectConfig.step), Transform(FitConfig.input_transform)
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", help="Collect on a Ray cluster: its address, auto, or local for this machine alone."
    ),
]
Actors = Annotated[int | None, typer.Option(help="Number of models with --ray; default: one per GPU.", min=1)]
RAY_RETRIES = 3
RAY_TIMEOUT = 3600.0
RayRetries = Annotated[
    int, typer.Option(help="With --ray: how often a part is begun again whose worker died.", min=0, max=1000)
]
RayTimeout = Annotated[
    float, typer.Option(help="With --ray: seconds after which the worker of a part is ended.", min=1)
]
Epochs = Annotated[int, typer.Option(help="Maximum number of epochs of the regressor (appendix A.2: 100).", min=1)]
Input = Annotated[Transform, typer.Option(help="Transform of the maps before the first layer; see docs/training.md.")]
LearningRate = Annotated[float, typer.Option(help="Learning rate of Adam (appendix A.2: 3e-4).", min=1e-9, max=10)]
WeightDecay = Annotated[float, typer.Option(help="Weight decay of Adam (appendix A.2: 1e-4).", min=0, max=1)]
BatchSize = Annotated[int, typer.Option(help="Candidates of a batch (appendix A.2: 64).", min=1)]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Threads that read maps ahead, 0 for none; default: the number of CPUs less one, at most 8.",
        min=0,
        max=1024,
    ),
]
Patience = Annotated[int, typer.Option(help="Epochs without improvement before it stops (appendix A.2: 15).", min=1)]
Heads = Annotated[int, typer.Option(help="Heads per coordinate (section 4.4).", min=1)]
HighIou = Annotated[float, typer.Option(help="IoU above which a box is in the high group.", min=0, max=1)]
LowIou = Annotated[float, typer.Option(help="IoU up to which a box is in the low group.", min=0, max=1)]
Layers = Annotated[int | None, typer.Option(help="Number of critical layers; default: a third.", min=1)]
AllLayers = Annotated[bool, typer.Option(help="Choose heads in all layers, not only critical ones.")]


MODEL_OPTIONS = (
    "model",
    "revision",
    "device",
    "ray",
    "actors",
    "max_image_tokens",
    "coordinate_frame",
    "dtype",
    "quantization",
    "ray_retries",
    "ray_timeout",
)


def model_options(options: Any) -> dict[str, Any]:
    """Return the arguments of :func:`models_of` from the options of a command that collects, by the same names."""
    return {name: getattr(options, name) for name in MODEL_OPTIONS}


def models_of(
    model: str,
    revision: str | None,
    device: str,
    ray: str | None = None,
    actors: int | None = None,
    max_image_tokens: int | None = None,
    coordinate_frame: str = FAMILY_FRAME,
    dtype: str = DEFAULT_DTYPE,
    quantization: str = DEFAULT_QUANTIZATION,
    ray_retries: int = RAY_RETRIES,
    ray_timeout: float = RAY_TIMEOUT,
) -> tuple[LVLM, PartRunner | None]:
    """Return the loaded model, and with ``--ray`` the function that collects on the cluster. In that case the model of
    this process stays on the CPU, since only its identity is read."""
    from acs_core.lvlm import load_lvlm

    dtype, quantization, coordinate_frame = str(dtype), str(quantization), str(coordinate_frame)
    load = partial(
        load_lvlm,
        dtype=dtype,
        quantization=quantization,
        max_image_tokens=max_image_tokens,
        coordinate_frame=coordinate_frame,
    )
    if ray is None:
        if actors:
            raise typer.BadParameter("goes with --ray", param_hint="--actors")
        return load(model, revision=revision, device=device), None
    if find_spec("ray") is None:
        raise DataError('--ray needs ray: pip install "ray[data]"')
    from training.collection.collect import ray_runner
    from training.collection.ray_pool import RayConfig

    lvlm = load(model, revision=revision, device="cpu")
    # A folder of built files has options of its own, which the name of its model does not lead to.
    again = partial(
        load_lvlm,
        lvlm.name,
        revision=lvlm.revision,
        device=device,
        dtype=dtype,
        quantization=quantization,
        **asdict(lvlm.picture),
    )
    return lvlm, ray_runner(
        again, RayConfig(ray, actors, 0 if device == "cpu" else None, retries=ray_retries, timeout=ray_timeout)
    )


def origin(data: Collection, store: Path) -> str:
    """Describe the collection that a file is made from: its annotation file, and its step and options for pictures if
    not the default ones."""
    found = [str(data.manifest.get("data") or store.name)]
    if step := data.manifest.get("step"):
        found.append(f"attention of the {step} step")
    found += [f"{name} {data.manifest[name]}" for name in PICTURE_OPTIONS if name in data.manifest]
    return ", ".join(found)


def square(side: int | None) -> tuple[int, int] | None:
    """Return the size (h, w) of square maps of ``side`` x ``side`` cells."""
    return (side, side) if side else None


def say(text: str) -> None:
    """Print a line on stderr, separate from the results of a command."""
    err.print(text, markup=False, highlight=False)
