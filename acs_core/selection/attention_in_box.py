"""Attention-in-box: ranks candidates by the attention that falls on their own box while their coordinates are written.

It is not part of the paper, whose selectors do not compare attention with the box. Nothing is trained: a file names the
layers to read, which :mod:`training.fitting.box_layers` finds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from acs_core import arguments
from acs_core.artifacts.heads import MAX_MADE_BY
from acs_core.artifacts.identity import ModelIdentity, ModelInfo
from acs_core.artifacts.json_io import read_object
from acs_core.artifacts.tensor_io import MAX_SIDE
from acs_core.attention import AttentionNeeds, AttentionRecord
from acs_core.errors import ArtifactError, NonFiniteError
from acs_core.output import write_text
from acs_core.plain_text import shorten
from acs_core.selection.base import ArtifactKind, SelectorSpec
from acs_core.selection.joint_features import share_in_box, shares_of_sides
from acs_core.types import Candidate, ScoreKind

SCHEMA_VERSION = 1
MARGIN = 0.5  # cells by which a box is widened: attention falls on whole cells, and small boxes are smaller than one


@dataclass(frozen=True)
class BoxLayers:
    """The layers of one LVLM whose attention falls on the object that is being written.

    Attributes:
        identity: the LVLM.
        layers: 0-based layers, not empty, each once.
        map_size: (h, w) of the attention maps that they were found on.
        chosen_iou: for each layer of the LVLM, the mean IoU of the boxes that it alone chose when the layers were
            found, in [0, 1]; empty if it is unknown.
        made_by: how the file was made.

    Raises:
        ArtifactError: a layer is outside the model or listed twice, or another value is impossible.
    """

    identity: ModelIdentity
    layers: tuple[int, ...]
    map_size: tuple[int, int]
    chosen_iou: tuple[float, ...] = ()
    made_by: str = ""

    def __post_init__(self) -> None:
        count = self.identity.num_layers
        if not self.layers or len(set(self.layers)) != len(self.layers):
            raise ArtifactError(f'field "layers" must list layers, each once, got {shorten(self.layers)}')
        if not all(0 <= layer < count for layer in self.layers):
            raise ArtifactError(
                f'field "layers" must hold layers of the model, 0 to {count - 1}, got {shorten(self.layers)}'
            )
        if len(self.map_size) != 2 or not all(1 <= side <= MAX_SIDE for side in self.map_size):
            raise ArtifactError(f'field "map_size" must be two sides of 1 to {MAX_SIDE}, got {shorten(self.map_size)}')
        if self.chosen_iou and (len(self.chosen_iou) != count or not all(0 <= v <= 1 for v in self.chosen_iou)):
            raise ArtifactError(f'field "chosen_iou" must be empty or hold {count} numbers in [0, 1]')

    @classmethod
    def load(cls, path: str | Path) -> BoxLayers:
        """Read and check a file of box layers (JSON).

        Raises:
            ArtifactError: the file is unreadable, damaged, of another schema version, or has a wrong field; the message
                names it.
            TypeError: ``path`` is not a path.
            ValueError: ``path`` is empty.
        """
        path = arguments.path("path", path)
        try:
            data = read_object(path, SCHEMA_VERSION)
            made_by = data.get("made_by", "")
            if not isinstance(made_by, str) or len(made_by) > MAX_MADE_BY:
                raise ArtifactError(f'field "made_by" must be a string of at most {MAX_MADE_BY} characters')
            layers, size, iou = (_numbers(data, key) for key in ("layers", "map_size", "chosen_iou"))
            if not all(isinstance(value, int) for value in (*layers, *size)):
                raise ArtifactError('fields "layers" and "map_size" must hold whole numbers')
            return cls(ModelIdentity.from_dict(data), layers, size, iou, made_by)
        except (ArtifactError, ValueError) as error:
            raise ArtifactError(f"box layers {path}: {error}. Find them again with `acs-train build`") from error

    def save(self, path: str | Path) -> None:
        """Write the file as indented JSON, atomically.

        Raises:
            OSError: the file cannot be written.
        """
        data = {"schema_version": SCHEMA_VERSION, **self.identity.to_dict(), "layers": list(self.layers)}
        data |= {"map_size": list(self.map_size), "chosen_iou": list(self.chosen_iou), "made_by": self.made_by}
        write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


class AttentionInBox:
    """Selector by the share of attention that falls on a candidate's own box, above that of an even map.

    Boxes of a second look are compared with the attention to their window.
    """

    name = "attention-in-box"
    score_kind = ScoreKind.RANK_RELATIVE
    feature = "attention_in_box"
    greedy_decoding = False

    def __init__(self, layers: BoxLayers) -> None:
        self.layers = arguments.instance("layers", layers, BoxLayers, "a BoxLayers")
        self.needs = AttentionNeeds(maps=True, map_size=layers.map_size)

    def qualities(
        self, candidates: Sequence[Candidate], record: AttentionRecord, image_size: tuple[int, int]
    ) -> np.ndarray:
        """Return (C,) qualities in [0, 1], the mean over the layers of :func:`attention_in_boxes`.

        Raises:
            ArtifactError: ``record`` holds no maps, or those of a model with too few layers.
            NonFiniteError: the attention is NaN or infinite.
        """
        if not candidates:
            return np.zeros(0)
        if record.maps is None or record.maps.shape[2] <= max(self.layers.layers):
            raise ArtifactError("attention-in-box needs attention maps of all layers that its file names")
        found = attention_in_boxes(candidates, record.maps[:, :, list(self.layers.layers)], image_size)
        if not np.isfinite(found).all():
            raise NonFiniteError(
                "attention-in-box got NaN or infinite attention: the model's weights or its dtype are broken; try "
                "float32, or get the weights again"
            )
        return found.mean(axis=1)

    def confidences(
        self,
        candidates: Sequence[Candidate],
        record: AttentionRecord,
        image_size: tuple[int, int],
        qualities: np.ndarray,
    ) -> np.ndarray | None:
        """Return the qualities, (C,) in [0, 1], which are comparable between calls."""
        return qualities


def attention_in_boxes(candidates: Sequence[Candidate], maps: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Return, by layer, how far attention exceeds that of an even map in each candidate's own box.

    With the share m of a map's mass that falls on the box, widened by MARGIN, and the share a of the map's area there,
    it is (m - a) / (1 - a), averaged over the four coordinates and the heads and clipped at 0. 1 is all attention in
    the box. Without a, the largest box would always win.

    Args:
        candidates: C candidates.
        maps: (C, 4, L, K, h, w) attention maps.
        image_size: (width, height) in pixels.

    Returns:
        (C, L) float64 in [0, 1].
    """
    share = shares_of_sides(candidates, image_size)
    mass = share_in_box(maps, share, MARGIN).mean(axis=(1, 3), dtype=np.float64)  # (C, L)
    h, w = maps.shape[-2:]
    area = share_in_box(np.ones((len(share), 1, 1, 1, h, w), np.float32), share, MARGIN)[:, 0, 0].astype(np.float64)
    return np.clip((mass - area) / np.maximum(1.0 - area, 1e-6), 0.0, 1.0)


def load_box_layers(path: str | Path, lvlm: ModelInfo | None = None) -> BoxLayers:
    """Read a file of box layers; with ``lvlm``, check that it was made for that model.

    Raises:
        ArtifactError: it cannot be read, or was made for another model.
    """
    file = BoxLayers.load(path)
    if lvlm is not None and (problem := file.identity.mismatch(lvlm)):
        raise ArtifactError(f"this file of box layers does not fit: {problem}. Make one with `acs-train build`")
    return file


def _numbers(data: Mapping[str, Any], key: str) -> tuple[Any, ...]:
    values = data.get(key, [])
    if not isinstance(values, list) or len(values) > 10_000:
        raise ArtifactError(f'field "{key}" must be a list of numbers, got {shorten(values)}')
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ArtifactError(f'field "{key}" must hold numbers, got {shorten(value)}')
    return tuple(values)


BOX_LAYERS = ArtifactKind(
    "box_layers",
    "box-layers.json",
    load_box_layers,
    ArtifactError,
    "no box layers are known for the model {model}: find them with `acs-train build`",
)
SPEC = SelectorSpec(AttentionInBox.name, AttentionInBox, reads=(BOX_LAYERS,))
