"""The attention-IoU regressor: a small CNN that reads a candidate's attention maps (paper section 4.2, appendix A).

Table 9 lists the layers in full and is followed; table 7 shows the same network without its parameterless layers
(dropout, flatten), and appendix A.1 gives both the dropout rate 0.3. The tables disagree on the order inside the
fusion MLP (BatchNorm then ReLU in table 7, ReLU then BatchNorm in table 9), which no parameter count can decide: the
fuller table 9 is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from acs_core.errors import RegressorError
from acs_core.identity import ModelIdentity, ModelLike
from acs_core.jsonfile import shorten
from acs_core.tensorfile import Origin, TensorFile

FILE = TensorFile(
    what="regressor",
    key="acs_regressor",
    max_bytes=256 * 2**20,
    error=RegressorError,
    advice="Train one with `acs-train build`, or pass another with regressor=...",
)
STORED_TYPES = ("F16", "BF16", "F32", "F64", "I64")  # I64: how many batches a normalisation has seen
INPUT_TRANSFORMS = ("raw", "cells", "log_cells")


def _branch(channels: int, dropout: float) -> nn.Sequential:
    """One coordinate: (B, L*K, h, w) -> (B, 128). ``ceil_mode`` changes nothing on the paper's 24 x 24 and 16 x 16
    maps; on the odd and tiny grids of small models it keeps a last row and column, so that no map shrinks to zero."""
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
    """Predicts the IoU of a candidate from its attention maps, f_theta of section 4.2.

    ``num_layers`` L and ``num_heads`` K are those of the LVLM. 28 x 28 gives 3,582,721 parameters (table 8), 36 x 32
    gives 4,430,593 (table 10).

    Attention is a share of one, so raw values lie around 1e-4 to 1e-2 and the first batch normalisation would see a
    variance far below its epsilon (1e-5). ``input_transform`` says what is done first:

    - "cells" (default): times h*w, so that attention spread evenly over the image, and only there, reads 1. A constant
      factor ahead of a linear layer: the same functions as with the paper's raw maps, in a range that trains well.
    - "log_cells": log(1 + that), which tames attention sinks.
    - "raw": nothing.

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
        """Attention maps (B, 4, L, K, h, w), shares of one as the LVLM gives them -> predicted IoU (B,) in [0, 1].

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
    """What a regressor file says about itself: the LVLM, the map size (h, w) it was trained on, how it was made."""

    identity: ModelIdentity
    map_size: tuple[int, int]
    input_transform: str = "cells"
    made_by: str = ""

    def check(self, lvlm: ModelLike) -> None:
        """Makes sure that the regressor was made for ``lvlm``.

        Raises:
            RegressorError: it was not; the message says what differs.
        """
        problem = self.identity.mismatch(lvlm)
        if problem:
            raise RegressorError(
                f"this regressor does not fit: {problem}. A regressor serves one LVLM only: train one with "
                "`acs-train build`, or use the selector acs-free"
            )


def save_regressor(
    path: str | Path,
    model: AttentionIoURegressor,
    identity: ModelIdentity,
    map_size: tuple[int, int],
    made_by: str = "",
    *,
    half: bool = True,
) -> None:
    """Writes safetensors with metadata. ``half`` stores weight matrices in float16 (about half the bytes; vectors,
    which hold the normalisation statistics, stay float32); loading gives float32 back.

    Raises:
        RegressorError: the module and ``identity`` disagree, or a weight is not finite.
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
        tensors[name] = stored
    metadata = FILE.metadata(Origin(identity, map_size, made_by), input_transform=model.input_transform)
    save_file(tensors, str(path), metadata=metadata)


def load_regressor(
    path: str | Path, device: torch.device | str = "cpu", lvlm: ModelLike | None = None
) -> tuple[AttentionIoURegressor, RegressorInfo]:
    """Reads a regressor in float32, in eval mode, onto ``device``; with ``lvlm`` it also checks that it fits it.

    Raises:
        RegressorError: unreadable, damaged, without our metadata, of other shapes, or made for another model.
    """
    model, info = FILE.read(path, "pt", _regressor)
    if lvlm is not None:
        info.check(lvlm)
    return model.to(device).eval(), info


def _regressor(origin: Origin, fields: Mapping[str, Any], file: Any) -> tuple[AttentionIoURegressor, RegressorInfo]:
    transform = fields.get("input_transform")
    if transform not in INPUT_TRANSFORMS:
        raise ValueError(f'field "input_transform" must be one of {INPUT_TRANSFORMS}, got {shorten(transform)}')
    info = RegressorInfo(origin.identity, origin.map_size, transform, origin.made_by)
    tensors = {name: _weight(file, name) for name in file.keys()}  # noqa: SIM118
    # On the meta device nothing is allocated or drawn from the random generator before the shapes are known to fit.
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
    extra = sorted(set(found) - set(wanted))
    if extra:
        raise ValueError(f"unknown weight {shorten(extra[0])}")
