"""The layers for attention-in-box: those whose attention falls on a candidate's own box if the box is right.

Nothing is fitted: each layer, and then sets of them, choose among the candidates of every pair, and the set that
chooses the best boxes is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from acs_core.selection.attention_in_box import BOX_LAYERS, BoxLayers, attention_in_boxes
from training.collection.offline_selection import calls
from training.collection.store import Collection
from training.errors import DataError
from training.fitting.artifacts import identity_of
from training.fitting.steps import FittingJob, FittingStep, Say

LEAST_GAIN = 0.002  # of the mean IoU, that a further layer must bring
MIN_PAIRS = 10  # with candidates to choose between


def find_box_layers(
    data: Collection, made_by: str = "", progress: Callable[[int, int], None] = lambda done, total: None
) -> BoxLayers:
    """Return the layers whose mean attention in the own box chooses the boxes of largest mean IoU.

    The best layer is taken first; others join it in turn, each the one that helps most, while the mean IoU of the
    chosen boxes over all pairs rises by at least LEAST_GAIN.

    Args:
        data: a collection with maps.
        made_by: origin of the file, for its metadata.
        progress: called with (done, total) while the maps are read.

    Raises:
        DataError: fewer than MIN_PAIRS pairs have candidates of different boxes.
    """
    found, iou = _of_pairs(data, progress)
    if len(found) < MIN_PAIRS:
        raise DataError(
            f"{len(found)} pairs have boxes to choose between, at least {MIN_PAIRS} are needed: collect more pairs"
        )
    alone = [_chosen_iou(found, iou, [layer]) for layer in range(found[0].shape[1])]
    layers = [int(np.argmax(alone))]
    best = alone[layers[0]]
    while len(layers) < len(alone):
        more = {k: _chosen_iou(found, iou, [*layers, k]) for k in range(len(alone)) if k not in layers}
        layer = max(more, key=lambda k: more[k])
        if more[layer] < best + LEAST_GAIN:
            break
        best = more[layer]
        layers.append(layer)
    size = int(data.maps.shape[-2]), int(data.maps.shape[-1])
    rounded = tuple(round(value, 4) for value in alone)
    return BoxLayers(identity_of(data), tuple(sorted(layers)), size, rounded, made_by)


def count_pairs(data: Collection) -> int:
    """Return the number of pairs that have boxes to choose between."""
    return sum(len({c.box for c in call.candidates}) >= 2 for call in calls(data, False) if call.image_size is not None)


def _of_pairs(data: Collection, progress: Callable[[int, int], None]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return, for every pair whose boxes differ, the attention in each box by layer, (C, L), and the IoU, (C,)."""
    found, iou = [], []
    for done, call in enumerate(calls(data, True)):
        progress(done, len(data.pairs))
        if call.image_size is None or call.record.maps is None or len({c.box for c in call.candidates}) < 2:
            continue
        found.append(attention_in_boxes(call.candidates, call.record.maps, call.image_size))
        iou.append(data.iou[call.index].astype(np.float64))
    progress(len(data.pairs), len(data.pairs))
    return found, iou


def _chosen_iou(found: Sequence[np.ndarray], iou: Sequence[np.ndarray], layers: list[int]) -> float:
    """Return the mean IoU of the boxes that the mean over ``layers`` chooses."""
    return float(np.mean([v[f[:, layers].mean(axis=1).argmax()] for f, v in zip(found, iou, strict=True)]))


def box_layers_step(
    data: Collection,
    out: Path,
    made_by: str,
    say: Say = print,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> BoxLayers:
    """Find the layers and write them into ``out``.

    Raises:
        DataError: see :func:`find_box_layers`.
    """
    file = find_box_layers(data, made_by, progress)
    file.save(out / BOX_LAYERS.file_name)
    best = ", ".join(f"{layer} ({file.chosen_iou[layer]:.3f})" for layer in file.layers)
    say(f"layers for attention-in-box (mean IoU of the boxes that each alone chooses): {best}")
    return file


def _run(job: FittingJob, out: Path) -> BoxLayers:
    return box_layers_step(
        job.data, out, job.made_by, job.say, lambda done, total: job.progress("box layers", done, total)
    )


BOX_LAYERS_STEP = FittingStep("box layers", (BOX_LAYERS,), (BOX_LAYERS.file_name,), _run)
