"""The box regressor: a small network that predicts a candidate's IoU from its attention in and around its own box.

It is not part of the paper, whose regressor reads whole maps and does not know where the candidate's box is.

The box enters only as the frame in which attention is read: each map is averaged over 9 x 9 bins of a frame of three
times the box, with the box in the middle. This was preferred to an input channel with the cover of the box for three
reasons. The centre means "in the own box" for each candidate, whatever its place, its size and the size of the map, so
that few weights and candidates suffice to learn it. The reading is exact for boxes that are smaller than a cell. And
the bins hold no trace of the box if attention is even: the network then predicts the same for all boxes. It cannot
learn which sizes and places of boxes are usually right, and what it predicts rests on attention.

Agreement with other candidates is not an input.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from acs_core.artifacts.identity import ModelIdentity, ModelInfo
from acs_core.artifacts.tensor_io import Origin, TensorFile
from acs_core.errors import RegressorError
from acs_core.selection.base import ArtifactKind, ModelInfoWithDevice
from acs_core.selection.regressor_files import LoadedRegressor, MapRegressor, fusion, read_regressor, write_regressor

FRAME = 3  # sides of the frame, in sides of the box
BINS = 9  # bins along a side of the frame: three along the box and as many at either side of it
WIDE = 4  # bins along a side of the whole map
MIN_SIDE = 1.0  # cells: attention falls on whole cells, so that a smaller box is read as one of this side

FILE = TensorFile(
    what="box regressor",
    key="acs_box_regressor",
    max_bytes=256 * 2**20,
    error=RegressorError,
    advice="Fit one with `acs-train build`",
    instead="acs-free",
)


class BoxRegressor(MapRegressor):
    """Regressor of a candidate's IoU from its attention maps in the frame of its box.

    Near: 9 x 9 bins of three times the box; a 1 x 1 convolution mixes the maps of all coordinates, layers and heads,
    and one of 3 x 3 with stride 3 reads the box and the eight blocks of its size around it. Far: 4 x 4 bins of the
    whole map, which tell attention elsewhere. 28 x 28 layers and heads give 835,233 parameters, 36 x 32 give 976,545,
    and 80 x 64 2,500,257. Arguments and errors are those of
    :class:`acs_core.selection.regressor_files.MapRegressor`.
    """

    def __init__(
        self, num_layers: int, num_heads: int, *, input_transform: str = "cells", dropout: float = 0.3
    ) -> None:
        super().__init__(num_layers, num_heads, input_transform=input_transform, dropout=dropout)
        channels = 4 * num_layers * num_heads
        self.near = nn.Sequential(  # (B, 4*L*K, 9, 9) -> (B, 1152)
            nn.Conv2d(channels, 64, 1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Dropout2d(dropout),
            nn.Conv2d(64, 128, FRAME, stride=BINS // FRAME),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.far = nn.Sequential(  # (B, 4*L*K, 4, 4) -> (B, 512)
            nn.Conv2d(channels, 32, 1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Dropout2d(dropout),
            nn.Flatten(),
        )
        self.fusion = fusion(128 * FRAME**2 + 32 * WIDE**2, dropout)

    def forward(self, maps: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Predict IoU (B,) in [0, 1].

        Args:
            maps: attention maps (B, 4, L, K, h, w), the raw weights of the LVLM.
            boxes: (B, 4) boxes x1, y1, x2, y2 in shares of the sides of the image that the maps are of.

        Raises:
            RegressorError: the maps have another number of layers or heads, or there is not one box for each candidate.
        """
        self.check_maps(maps)
        if tuple(boxes.shape) != (len(maps), 4):
            raise RegressorError(f"expected boxes ({len(maps)}, 4), got {tuple(boxes.shape)}")
        x = maps.flatten(1, 3)  # (B, 4, L, K, h, w) -> (B, 4*L*K, h, w)
        h, w = x.shape[-2:]
        boxes = boxes.to(x.dtype)
        down = bin_weights(frame_edges(boxes[:, 1], boxes[:, 3], h), h)  # (B, 9, h)
        across = bin_weights(frame_edges(boxes[:, 0], boxes[:, 2], w), w)  # (B, 9, w)
        near = torch.einsum("bchw,byh,bxw->bcyx", x, down, across)
        far = F.adaptive_avg_pool2d(x, WIDE)
        read = [part(self.transformed(y, h * w)) for part, y in ((self.near, near), (self.far, far))]
        return torch.sigmoid(self.fusion(torch.cat(read, dim=1))).squeeze(1)  # (B, 1664) -> (B, 1) -> (B,)


def frame_edges(low: torch.Tensor, high: torch.Tensor, cells: int) -> torch.Tensor:
    """Return the edges of the bins along one side of the frames, (B, BINS + 1) in cells.

    Args:
        low, high: (B,) start and end of the boxes, in shares of the side of the image.
        cells: number of cells along the side.
    """
    middle = (low + high) / 2 * cells
    reach = ((high - low) * cells).clamp(min=MIN_SIDE) * FRAME / 2  # from the middle to the end of the frame
    steps = torch.linspace(-1.0, 1.0, BINS + 1, dtype=low.dtype, device=low.device)
    return middle[:, None] + reach[:, None] * steps


def bin_weights(edges: torch.Tensor, cells: int) -> torch.Tensor:
    """Return the weights that average the values of a row of cells over bins.

    Between the centres of two cells, values are interpolated linearly; beyond the first and the last centre, also
    outside the image, they are those of the first and the last cell. Weights are those of the exact integral over the
    bin. They sum to 1, so that an even row is even in each bin.

    Args:
        edges: (B, n + 1) rising edges of n bins, in cells.
        cells: number of cells.

    Returns:
        (B, n, cells).
    """
    centre = torch.arange(cells, dtype=edges.dtype, device=edges.device) + 0.5
    inside = edges.clamp(0.5, cells - 0.5)
    off = (inside[..., None] - centre).clamp(-1.0, 1.0)  # (B, n + 1, cells)
    # The integral, up to the edge, of the share that each cell has in the interpolated value: a triangle of height 1.
    up_to = torch.where(off < 0, (1.0 + off) ** 2 / 2, 1.0 - (1.0 - off) ** 2 / 2)
    up_to = up_to + (edges - inside)[..., None] * (1.0 - off.abs())
    return up_to.diff(dim=1) / edges.diff(dim=1)[..., None]


def save_box_regressor(
    path: str | Path, model: BoxRegressor, identity: ModelIdentity, map_size: tuple[int, int], made_by: str = ""
) -> None:
    """Write a box regressor atomically as safetensors, with matrices in float16; see
    :func:`acs_core.selection.regressor_files.write_regressor`.

    Raises:
        RegressorError: the module and ``identity`` disagree, or a weight is not finite or of implausible size.
        OSError: the path cannot be written.
    """
    write_regressor(path, FILE, model, Origin(identity, map_size, made_by))


def load_box_regressor(
    path: str | Path, device: torch.device | str = "cpu", lvlm: ModelInfo | None = None
) -> LoadedRegressor[BoxRegressor]:
    """Read a box regressor; see :func:`acs_core.selection.regressor_files.read_regressor`.

    Raises:
        RegressorError: the file cannot be used, or was made for another model.
    """
    return read_regressor(path, FILE, BoxRegressor, device, lvlm)


def _load(path: str | Path, lvlm: ModelInfoWithDevice | None) -> LoadedRegressor[BoxRegressor]:
    return load_box_regressor(path, "cpu" if lvlm is None else str(lvlm.device), lvlm)


BOX_REGRESSOR = ArtifactKind(
    "box_regressor",
    "regressor-box.safetensors",
    _load,
    RegressorError,
    "no box regressor is known for the model {model}: fit one with `acs-train build`",
)
