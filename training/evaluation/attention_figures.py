"""Figures of attention over pictures that the user names: 3 (critical layers), 6 to 9 (all layers of a coordinate)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from acs_core.generation.prefill import prefill
from acs_core.geometry import Box
from acs_core.lvlm.base import LVLM
from acs_core.selection.scorer import Scorer
from acs_core.types import COORDINATES
from training.collection.part import draw, look
from training.errors import DataError
from training.plotting import HEAT, PREDICTED, new_figure, outline
from training.settings import CollectConfig

SHOWN_LAYERS = 5  # of figure 3
COLUMNS = 7  # of the grids
SPAN = 100.0  # the colours of a grid end at this multiple of even attention, or at the largest value
LEAST = 0.1  # and begin here


@dataclass(frozen=True)
class SeenPicture:
    """A picture with the attention of the box that was found in it.

    Attributes:
        picture: (H, W, 3) uint8 RGB.
        phrase: what was asked for.
        box: the selected box in pixels.
        maps: (4, L, h, w) attention of its coordinates, the mean over the heads, in multiples of even attention.
    """

    picture: np.ndarray
    phrase: str
    box: Box
    maps: np.ndarray


def see(lvlm: LVLM, scorer: Scorer, picture: np.ndarray, phrase: str, config: CollectConfig) -> SeenPicture:
    """Ask ``lvlm`` for ``phrase`` and return the attention of the box that ``scorer`` selects.

    Args:
        lvlm: the model.
        scorer: a selector that needs no maps.
        picture: (H, W, 3) uint8 RGB.
        phrase: the phrase.
        config: samples, temperature and seed; maps keep the grid of the model.

    Raises:
        DataError: no response has a box; the message says why.
        PhraseError: the phrase is empty or too long.
    """
    state = prefill(lvlm, [lvlm.prepare(picture, phrase)])
    (samples,) = draw(lvlm, [state], config, [0])
    candidates, responses, record = look(lvlm, samples, config)
    decision = scorer.decide(candidates, responses, record, (picture.shape[1], picture.shape[0]))
    if not decision.detections or record.maps is None:
        raise DataError(f'"{phrase}": {decision.reason or "no box"}, so there is no attention to draw')
    best = decision.detections[0].candidate
    maps = record.maps[best].astype(np.float64).mean(axis=2)  # (4, L, K, h, w) -> (4, L, h, w)
    share = maps / np.maximum(maps.sum(axis=(-2, -1), keepdims=True), np.finfo(float).tiny)
    return SeenPicture(picture, phrase, candidates[best].box, share * math.prod(maps.shape[-2:]))


def critical_figure(seen: Sequence[SeenPicture], layers: Sequence[int], title: str) -> Figure:
    """Return figure 3: a row for each picture, with the box, and the attention of up to five of the critical
    ``layers``, spread evenly over them, as the mean of the coordinates. Each map has its own scale."""
    ordered = sorted(layers)
    places = np.linspace(0, len(ordered) - 1, min(SHOWN_LAYERS, len(ordered))).round().astype(int)
    shown = [ordered[k] for k in places]
    ratio = float(np.mean([s.picture.shape[0] / s.picture.shape[1] for s in seen]))
    figure, grid = new_figure(
        len(seen), 1 + len(shown), (1.75 * (1 + len(shown)), (1.75 * ratio + 0.3) * len(seen) + 0.3), squeeze=False
    )
    for row, s in zip(grid, seen, strict=True):
        _picture(row[0], s)
        row[0].set_title(f'"{s.phrase}"', fontsize=8)
        for axes, layer in zip(row[1:], shown, strict=True):
            heat = s.maps[:, layer].mean(axis=0)
            _grey(axes, s)
            extent = _extent(s)
            axes.imshow(heat, extent=extent, cmap=HEAT, alpha=0.65, interpolation="bilinear", vmin=0, vmax=heat.max())
            axes.add_patch(outline(s.box, "#ffffff", 0.9))
            axes.set_title(f"layer {layer}", fontsize=8)
    figure.suptitle(title, fontsize=9)
    return figure


def layers_figure(seen: SeenPicture, coordinate: int, layers: Sequence[int], title: str) -> Figure:
    """Return a part of figures 6 to 9: the attention of all layers for one coordinate, on one scale with a colour bar;
    titles of the critical ``layers`` are bold.

    Args:
        seen: picture and attention.
        coordinate: index in ``COORDINATES``.
        layers: the critical layers.
        title: title of the figure.
    """
    maps = seen.maps[coordinate]  # (L, h, w)
    count = 1 + len(maps)
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    ratio = seen.picture.shape[0] / seen.picture.shape[1]
    figure, grid = new_figure(rows, columns, (1.5 * columns + 0.8, (1.5 * ratio + 0.28) * rows + 0.5), squeeze=False)
    scale = LogNorm(LEAST, max(2 * LEAST, min(SPAN, float(maps.max()))), clip=True)
    for axes in grid.flat[count:]:
        axes.set_axis_off()
    _picture(grid.flat[0], seen)
    grid.flat[0].set_title(f'"{seen.phrase}"', fontsize=8)
    for layer, (axes, heat) in enumerate(zip(grid.flat[1:], maps, strict=False)):
        axes.imshow(np.maximum(heat, LEAST), extent=_extent(seen), cmap=HEAT, norm=scale)
        axes.add_patch(outline(seen.box, "#7fd4ff", 0.9))
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"layer {layer}", fontsize=8, fontweight="bold" if layer in layers else "normal")
    bar = figure.colorbar(ScalarMappable(scale, HEAT), ax=grid, shrink=0.9, pad=0.01, extend="both")
    bar.set_label("attention,\n1 = spread evenly", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bold = "; critical layers in bold" if layers else ""
    figure.suptitle(f"{title}: {COORDINATES[coordinate]}, mean over heads{bold}", fontsize=9)
    return figure


def _picture(axes: Any, seen: SeenPicture) -> None:
    axes.imshow(seen.picture, extent=_extent(seen))
    axes.add_patch(outline(seen.box, "#000000", 1.6))
    axes.add_patch(outline(seen.box, PREDICTED, 0.9))
    axes.set(xticks=[], yticks=[])


def _grey(axes: Any, seen: SeenPicture) -> None:
    axes.imshow(seen.picture.mean(axis=2), extent=_extent(seen), cmap="gray", vmin=0, vmax=255)
    axes.set(xticks=[], yticks=[])


def _extent(seen: SeenPicture) -> tuple[float, float, float, float]:
    height, width = seen.picture.shape[:2]
    return 0.0, float(width), float(height), 0.0
