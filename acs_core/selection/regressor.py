"""The attention-IoU regressor: a small CNN that reads a candidate's attention maps (paper section 4.2, appendix A).

The implementation follows table 9, which lists all layers; table 7 shows the same network without its parameterless
layers (dropout, flatten), and appendix A.1 gives both the dropout rate 0.3. The tables disagree on the order inside the
fusion MLP (BatchNorm then ReLU in table 7, ReLU then BatchNorm in table 9), which parameter counts cannot decide: the
order of the more complete table 9 is used.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from acs_core.artifacts.identity import ModelIdentity, ModelInfo
from acs_core.artifacts.tensor_io import Origin, TensorFile
from acs_core.errors import RegressorError
from acs_core.selection.base import ArtifactKind, ModelInfoWithDevice
from acs_core.selection.regressor_files import LoadedRegressor, MapRegressor, fusion, read_regressor, write_regressor

FILE = TensorFile(
    what="regressor",
    key="acs_regressor",
    max_bytes=256 * 2**20,
    error=RegressorError,
    advice="Train one with `acs-train build`, or pass another with regressor=...",
    instead="acs-free",
)


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


class AttentionIoURegressor(MapRegressor):
    """Regressor of a candidate's IoU from its attention maps, f_theta of section 4.2.

    28 x 28 layers and heads give 3,582,721 parameters (table 8), 36 x 32 give 4,430,593 (table 10). Arguments and
    errors are those of :class:`acs_core.selection.regressor_files.MapRegressor`.
    """

    def __init__(
        self, num_layers: int, num_heads: int, *, input_transform: str = "cells", dropout: float = 0.3
    ) -> None:
        super().__init__(num_layers, num_heads, input_transform=input_transform, dropout=dropout)
        self.branches = nn.ModuleList(_branch(num_layers * num_heads, dropout) for _ in range(4))
        self.fusion = fusion(4 * 128, dropout)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Predict IoU (B,) in [0, 1] from attention maps (B, 4, L, K, h, w), the raw weights of the LVLM.

        Raises:
            RegressorError: the maps have another number of layers or heads.
        """
        self.check_maps(maps)
        x = maps.flatten(2, 3)  # (B, 4, L, K, h, w) -> (B, 4, L*K, h, w)
        x = self.transformed(x, x.shape[-2] * x.shape[-1])
        features = [branch(x[:, c]) for c, branch in enumerate(self.branches)]  # 4 x (B, 128)
        logits = self.fusion(torch.cat(features, dim=1))  # (B, 512) -> (B, 1)
        return torch.sigmoid(logits).squeeze(1)


def save_regressor(
    path: str | Path,
    model: AttentionIoURegressor,
    identity: ModelIdentity,
    map_size: tuple[int, int],
    made_by: str = "",
    *,
    half: bool = True,
) -> None:
    """Write a regressor atomically as safetensors; see
    :func:`acs_core.selection.regressor_files.write_regressor`.

    Raises:
        RegressorError: the module and ``identity`` disagree, or a weight is not finite or of implausible size.
        OSError: the path cannot be written.
    """
    write_regressor(path, FILE, model, Origin(identity, map_size, made_by), half)


def load_regressor(
    path: str | Path, device: torch.device | str = "cpu", lvlm: ModelInfo | None = None
) -> LoadedRegressor[AttentionIoURegressor]:
    """Read a regressor; see :func:`acs_core.selection.regressor_files.read_regressor`.

    Raises:
        RegressorError: the file cannot be used, or was made for another model.
    """
    return read_regressor(path, FILE, AttentionIoURegressor, device, lvlm)


def _load(path: str | Path, lvlm: ModelInfoWithDevice | None) -> LoadedRegressor[AttentionIoURegressor]:
    return load_regressor(path, "cpu" if lvlm is None else str(lvlm.device), lvlm)


REGRESSOR = ArtifactKind(
    "regressor",
    "regressor.safetensors",
    _load,
    RegressorError,
    "no regressor is known for the model {model}: train one with `acs-train build`, or pass regressor=... (command "
    "line: --regressor FILE)",
)
