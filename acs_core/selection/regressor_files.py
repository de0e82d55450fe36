"""What the regressors share: the checks of their maps, their last layers, and their files, which are safetensors with
metadata, read without trusting their content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from safetensors.torch import save
from torch import nn

from acs_core.artifacts.identity import ModelIdentity, ModelInfo
from acs_core.artifacts.tensor_io import Origin, TensorFile
from acs_core.errors import RegressorError
from acs_core.output import write_bytes
from acs_core.plain_text import shorten

STORED_TYPES = ("F16", "BF16", "F32", "F64", "I64")  # I64: number of batches that a normalisation was trained on
INPUT_TRANSFORMS = ("raw", "cells", "log_cells")
MAX_WEIGHT, MAX_VARIANCE = 1e6, 1e12  # trained weights are below 10; beyond these, layers overflow in float32
MAX_BATCHES = 1e12


class MapRegressor(nn.Module):
    """Base class of the networks that predict a candidate's IoU from its attention maps.

    Raw attention weights are around 1e-4 to 1e-2, so the first batch normalisation would see a variance far below its
    epsilon (1e-5); they are therefore transformed first.

    Args:
        num_layers: number L of layers of the LVLM.
        num_heads: number K of heads of the LVLM.
        input_transform: "cells" (default) multiplies by h*w, so that attention spread evenly over the image is 1; the
            factor precedes a linear layer, so the same functions can be represented as with the paper's raw maps.
            "log_cells" is log(1 + that), which reduces attention sinks. "raw" changes nothing.
        dropout: share of the features that are left out in training.

    Raises:
        RegressorError: a count below 1 or an unknown transform.
    """

    def __init__(
        self, num_layers: int, num_heads: int, *, input_transform: str = "cells", dropout: float = 0.3
    ) -> None:
        super().__init__()
        if num_layers < 1 or num_heads < 1:
            raise RegressorError(f"layers and heads must be at least 1, got {num_layers} x {num_heads}")
        if input_transform not in INPUT_TRANSFORMS:
            raise RegressorError(f"input_transform must be one of {INPUT_TRANSFORMS}, got {input_transform!r}")
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.input_transform = input_transform
        self.dropout = dropout

    def check_maps(self, maps: torch.Tensor) -> None:
        """Check that ``maps`` are (B, 4, L, K, h, w).

        Raises:
            RegressorError: the maps have another number of layers or heads.
        """
        if maps.ndim != 6 or tuple(maps.shape[1:4]) != (4, self.num_layers, self.num_heads):
            raise RegressorError(
                f"expected maps (B, 4, {self.num_layers}, {self.num_heads}, h, w), got {tuple(maps.shape)}"
            )

    def transformed(self, weights: torch.Tensor, cells: int) -> torch.Tensor:
        """Return ``weights`` of maps with so many ``cells``, transformed as ``input_transform`` says."""
        if self.input_transform != "raw":
            weights = weights * cells
        return torch.log1p(weights) if self.input_transform == "log_cells" else weights


def fusion(features: int, dropout: float) -> nn.Sequential:
    """Return the last layers, (B, ``features``) -> (B, 1) logit of the IoU: the fusion MLP of the paper's table 9."""
    return nn.Sequential(
        nn.Linear(features, 256),
        nn.ReLU(),
        nn.BatchNorm1d(256),
        nn.Dropout(dropout),
        nn.Linear(256, 128),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(128, 1),
    )


N = TypeVar("N", bound=MapRegressor)


@dataclass(frozen=True)
class RegressorInfo:
    """Metadata of a regressor file.

    Attributes:
        identity: the LVLM.
        map_size: (h, w) of the maps that the regressor was trained on.
        input_transform: see :class:`MapRegressor`.
        made_by: origin of the file.
    """

    identity: ModelIdentity
    map_size: tuple[int, int]
    input_transform: str = "cells"
    made_by: str = ""


class LoadedRegressor(NamedTuple, Generic[N]):
    """A regressor in eval mode, and the metadata of its file."""

    model: N
    info: RegressorInfo

    @property
    def identity(self) -> ModelIdentity:
        """Identity of the LVLM that the regressor was made for."""
        return self.info.identity

    @property
    def map_size(self) -> tuple[int, int]:
        """(h, w) of the maps that the regressor was trained on."""
        return self.info.map_size


def write_regressor(path: str | Path, kind: TensorFile, model: MapRegressor, origin: Origin, half: bool = True) -> None:
    """Write a regressor atomically, as a file of the given kind.

    ``half`` stores weight matrices in float16, in about half the bytes; vectors, which include the normalisation
    statistics, stay float32. Loading returns float32.

    Raises:
        RegressorError: the module and the LVLM of ``origin`` disagree, or a weight is not finite or of implausible
            size.
        OSError: the path cannot be written.
    """
    identity = origin.identity
    if (model.num_layers, model.num_heads) != (identity.num_layers, identity.num_heads):
        raise RegressorError(
            f"the regressor reads {model.num_layers} x {model.num_heads} heads, {identity.model} has "
            f"{identity.num_layers} x {identity.num_heads}"
        )
    tensors = {}
    for name, value in model.state_dict().items():
        stored = value.detach().cpu().contiguous()
        if half and stored.ndim >= 2:
            stored = stored.to(torch.float16)
        if not torch.isfinite(stored).all():
            raise RegressorError(f"the weight {name} is not finite: the training diverged, nothing was written")
        if problem := _value_problem(name, stored):
            raise RegressorError(f"{problem}: the training diverged, nothing was written")
        tensors[name] = stored
    write_bytes(path, save(tensors, kind.metadata(origin, input_transform=model.input_transform)))


def read_regressor(
    path: str | Path, kind: TensorFile, network: type[N], device: torch.device | str, lvlm: ModelInfo | None
) -> LoadedRegressor[N]:
    """Read a file of the given kind as a ``network`` in float32, in eval mode, onto ``device``; with ``lvlm``, check
    that it was made for that model.

    Raises:
        RegressorError: the file is unreadable, damaged, without our metadata, of other shapes, with implausible weights
            (a negative variance, or beyond MAX_WEIGHT), or made for another model.
    """
    model, info = kind.read(path, "pt", partial(_regressor, network), lvlm)
    return LoadedRegressor(model.to(device).eval(), info)


def _regressor(network: type[N], origin: Origin, fields: Mapping[str, Any], file: Any) -> tuple[N, RegressorInfo]:
    transform = fields.get("input_transform")
    if transform not in INPUT_TRANSFORMS:
        raise ValueError(f'field "input_transform" must be one of {INPUT_TRANSFORMS}, got {shorten(transform)}')
    info = RegressorInfo(origin.identity, origin.map_size, transform, origin.made_by)
    tensors = {name: _weight(file, name) for name in file.keys()}  # noqa: SIM118
    # The meta device allocates and draws nothing until the shapes have been checked.
    with torch.device("meta"):
        model = network(info.identity.num_layers, info.identity.num_heads, input_transform=transform)
    _check_tensors(tensors, model.state_dict())
    for name in tensors:
        if name.endswith("num_batches_tracked"):
            tensors[name] = tensors[name].to(torch.int64)
    model.load_state_dict(tensors, assign=True)
    return model, info


def _weight(file: Any, name: str) -> torch.Tensor:
    kind = file.get_slice(name).get_dtype()
    if kind not in STORED_TYPES:
        raise ValueError(f"the weight {shorten(name)} is of type {kind}, not one of {', '.join(STORED_TYPES)}")
    return file.get_tensor(name).to(torch.float32)


def _check_tensors(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    for name, value in wanted.items():
        if name not in found:
            raise ValueError(f"the weight {name} is missing")
        if found[name].shape != value.shape:
            shape, asked = tuple(found[name].shape), tuple(value.shape)
            raise ValueError(f"the weight {name} has shape {shape}, its metadata ask for {asked}")
        if not torch.isfinite(found[name]).all():
            raise ValueError(f"the weight {name} holds values that are not finite")
        if problem := _value_problem(name, found[name]):
            raise ValueError(problem)
    extra = sorted(set(found) - set(wanted))
    if extra:
        raise ValueError(f"unknown weight {shorten(extra[0])}")


def _value_problem(name: str, values: torch.Tensor) -> str:
    """Return the reason why training cannot have produced these finite values, or an empty string."""
    low, high = (float(v) for v in values.aminmax())
    if name.endswith("running_var"):
        # A channel that is never active has variance 0; the epsilon of the normalisation prevents a division by 0.
        if low < 0 or high > MAX_VARIANCE:
            return f"the variance {name} lies from {low:.3g} to {high:.3g}, none is below 0 or above {MAX_VARIANCE:g}"
    elif name.endswith("num_batches_tracked"):
        if low < 0 or high > MAX_BATCHES:
            return f"the count {name} is {high:.3g}, which is none"
    elif max(-low, high) > MAX_WEIGHT:
        return f"the weight {name} holds values up to {max(-low, high):.3g}, none is above {MAX_WEIGHT:g}"
    return ""
