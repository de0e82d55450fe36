"""The attention-IoU regressor: a small CNN that reads a candidate's attention maps (paper section 4.2, appendix A).

The implementation follows table 9, which lists all layers; table 7 shows the same network without its parameterless
layers (dropout, flatten), and appendix A.1 gives both the dropout rate 0.3. The tables disagree on the order inside the
fusion MLP (BatchNorm then ReLU in table 7, ReLU then BatchNorm in table 9), which parameter counts cannot decide: the
order of the more complete table 9 is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save
from torch import nn

from acs_core.artifacts.identity import ModelIdentity, ModelInfo
from acs_core.artifacts.tensor_io import Origin, TensorFile
from acs_core.errors import RegressorError
from acs_core.output import write_bytes
from acs_core.plain_text import shorten
from acs_core.selection.base import ArtifactKind, ModelInfoWithDevice

FILE = TensorFile(
    what="regressor",
    key="acs_regressor",
    max_bytes=256 * 2**20,
    error=RegressorError,
    advice="Train one with `acs-train build`, or pass another with regressor=...",
    instead="acs-free",
)
STORED_TYPES = ("F16", "BF16", "F32", "F64", "I64")  # I64: number of batches that a normalisation was trained on
INPUT_TRANSFORMS = ("raw", "cells", "log_cells")
MAX_WEIGHT, MAX_VARIANCE = 1e6, 1e12  # trained weights are below 10; beyond these, layers overflow in float32
MAX_BATCHES = 1e12


def _branch(channels: int, dropout: float) -> nn.Sequential:
    """Return the layers of one coordinate: (B, L*K, h, w) -> (B, 128).

    ``ceil_mode`` has no effect on the paper's 24 x 24 and 16 x 16 maps; on the odd and tiny grids of small models it
    keeps the last row and column, so that no map shrinks to zero.
    """
    return nn.Sequential(
        nn.Conv2d(channels, 64, 3, padding=1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.Dropout2d(dropout),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Conv2d(64, 128, 3, padding=1),
        nn.BatchNorm2d(128),
        nn.ReLU(),
        nn.Dropout2d(dropout),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Conv2d(128, 256, 3, padding=1),
        nn.BatchNorm2d(256),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(256, 128),
    )


class AttentionIoURegressor(nn.Module):
    """Regressor of a candidate's IoU from its attention maps, f_theta of section 4.2.

    28 x 28 layers and heads give 3,582,721 parameters (table 8), 36 x 32 give 4,430,593 (table 10). Raw attention
    weights are around 1e-4 to 1e-2, so the first batch normalisation would see a variance far below its epsilon (1e-5);
    maps are therefore transformed first.

    Args:
        num_layers: number L of layers of the LVLM.
        num_heads: number K of heads of the LVLM.
        input_transform: "cells" (default) multiplies by h*w, so that attention spread evenly over the image is 1; the
            factor precedes a linear layer, so the same functions can be represented as with the paper's raw maps.
            "log_cells" is log(1 + that), which reduces attention sinks. "raw" changes nothing.

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
        self.branches = nn.ModuleList(_branch(num_layers * num_heads, dropout) for _ in range(4))
        self.fusion = nn.Sequential(
            nn.Linear(4 * 128, 256),
            nn.ReLU(),
            nn.BatchNorm1d(256),
            nn.Dropout(dropout),
            nn.Linear(256, 128),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(128, 1),
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Predict IoU (B,) in [0, 1] from attention maps (B, 4, L, K, h, w), the raw weights of the LVLM.

        Raises:
            RegressorError: the maps have another number of layers or heads.
        """
        if maps.ndim != 6 or tuple(maps.shape[1:4]) != (4, self.num_layers, self.num_heads):
            raise RegressorError(
                f"expected maps (B, 4, {self.num_layers}, {self.num_heads}, h, w), got {tuple(maps.shape)}"
            )
        x = maps.flatten(2, 3)  # (B, 4, L, K, h, w) -> (B, 4, L*K, h, w)
        if self.input_transform != "raw":
            x = x * (x.shape[-2] * x.shape[-1])
        if self.input_transform == "log_cells":
            x = torch.log1p(x)
        features = [branch(x[:, c]) for c, branch in enumerate(self.branches)]  # 4 x (B, 128)
        logits = self.fusion(torch.cat(features, dim=1))  # (B, 512) -> (B, 1)
        return torch.sigmoid(logits).squeeze(1)


@dataclass(frozen=True)
class RegressorInfo:
    """Metadata of a regressor file.

    Attributes:
        identity: the LVLM.
        map_size: (h, w) of the maps that the regressor was trained on.
        input_transform: see :class:`AttentionIoURegressor`.
        made_by: origin of the file.
    """

    identity: ModelIdentity
    map_size: tuple[int, int]
    input_transform: str = "cells"
    made_by: str = ""


class LoadedRegressor(NamedTuple):
    """A regressor in eval mode, and the metadata of its file."""

    model: AttentionIoURegressor
    info: RegressorInfo

    @property
    def identity(self) -> ModelIdentity:
        """Identity of the LVLM that the regressor was made for."""
        return self.info.identity

    @property
    def map_size(self) -> tuple[int, int]:
        """(h, w) of the maps that the regressor was trained on."""
        return self.info.map_size


def save_regressor(
    path: str | Path,
    model: AttentionIoURegressor,
    identity: ModelIdentity,
    map_size: tuple[int, int],
    made_by: str = "",
    *,
    half: bool = True,
) -> None:
    """Write a regressor atomically as safetensors with metadata.

    ``half`` stores weight matrices in float16, in about half the bytes; vectors, which include the normalisation
    statistics, stay float32. Loading returns float32.

    Raises:
        RegressorError: the module and ``identity`` disagree, or a weight is not finite or of implausible size.
        OSError: the path cannot be written.
    """
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
    metadata = FILE.metadata(Origin(identity, map_size, made_by), input_transform=model.input_transform)
    write_bytes(path, save(tensors, metadata))


def load_regressor(
    path: str | Path, device: torch.device | str = "cpu", lvlm: ModelInfo | None = None
) -> LoadedRegressor:
    """Read a regressor in float32, in eval mode, onto ``device``; with ``lvlm``, check that it was made for that model.

    Raises:
        RegressorError: the file is unreadable, damaged, without our metadata, of other shapes, with implausible weights
            (a negative variance, or beyond MAX_WEIGHT), or made for another model.
    """
    model, info = FILE.read(path, "pt", _regressor, lvlm)
    return LoadedRegressor(model.to(device).eval(), info)


def _regressor(origin: Origin, fields: Mapping[str, Any], file: Any) -> tuple[AttentionIoURegressor, RegressorInfo]:
    transform = fields.get("input_transform")
    if transform not in INPUT_TRANSFORMS:
        raise ValueError(f'field "input_transform" must be one of {INPUT_TRANSFORMS}, got {shorten(transform)}')
    info = RegressorInfo(origin.identity, origin.map_size, transform, origin.made_by)
    tensors = {name: _weight(file, name) for name in file.keys()}  # noqa: SIM118
    # The meta device allocates and draws nothing until the shapes have been checked.
    with torch.device("meta"):
        model = AttentionIoURegressor(info.identity.num_layers, info.identity.num_heads, input_transform=transform)
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


def _load(path: str | Path, lvlm: ModelInfoWithDevice | None) -> LoadedRegressor:
    return load_regressor(path, "cpu" if lvlm is None else str(lvlm.device), lvlm)


REGRESSOR = ArtifactKind(
    "regressor",
    "regressor.safetensors",
    _load,
    RegressorError,
    "no regressor is known for the model {model}: train one with `acs-train build`, or pass regressor=... (command "
    "line: --regressor FILE)",
)
