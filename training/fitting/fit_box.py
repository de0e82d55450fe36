"""Fit of the box regressor of acs-learned-box, and what is left of its predictions if attention, or the own box, is
taken out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from acs_core.selection.box_regressor import BOX_REGRESSOR, BoxRegressor, save_box_regressor
from training.collection.store import Collection
from training.fitting.artifacts import identity_of
from training.fitting.batches import boxes_of
from training.fitting.fit import FitConfig, FitResult, Progress, fit_network, predict, unseen
from training.fitting.metrics import agreement, agreements, in_words, row
from training.fitting.processes import leave_group

SAME = 1e-4  # predictions that differ by less are the same but for rounding
WORK = "box"  # folder of the checkpoints, in that of the regressor's


@dataclass(frozen=True)
class BoxFit:
    """Result of :func:`box_step`.

    Attributes:
        fitted: result of the fit.
        content: its part of ``fit.json``.
    """

    fitted: FitResult[BoxRegressor]
    content: dict[str, Any]


def box_step(
    data: Collection,
    out: Path,
    config: FitConfig,
    made_by: str,
    evaluate: Mapping[str, Collection] | None = None,
    work: Path | None = None,
    say: Callable[[str], None] = print,
    progress: Progress = lambda epoch, loss, held: None,
    device: str = "auto",
    workers: int | None = None,
) -> BoxFit:
    """Fit the box regressor, write it into ``out`` and measure it.

    It is small, so that one device fits it also where there are several. Arguments are those of
    :func:`training.fitting.steps.fit_step`; checkpoints are kept in ``WORK`` in ``work``.

    Raises:
        DataError: see :func:`training.fitting.fit.fit_network`.
    """
    leave_group()
    folder = work / WORK if work else None
    fitted = fit_network(BoxRegressor, data, config, folder, progress, _one(device), workers)
    size = int(data.maps.shape[-2]), int(data.maps.shape[-1])
    save_box_regressor(out / BOX_REGRESSOR.file_name, fitted.regressor, identity_of(data), size, made_by)
    rows = agreements(fitted.predicted, fitted.validation, data)
    for name, other in (evaluate or {}).items():
        index = unseen(name, fitted.train, data, other)
        told = agreement(predict(fitted.regressor, other, index), other.iou[index])
        rows.append(row(name, other.manifest.get("temperature"), "all", told))
    for line in rows:
        say(f"box regressor, {in_words(line)}")
    taken_out = ablations(fitted, data, config.seed)
    for line in taken_out:
        say(
            f"box regressor, {line['where']}: Pearson r {line['pearson']:.3f}, mean IoU of the boxes that it chooses "
            f"{line['chosen_iou']:.3f}"
        )
    content = {
        "epochs": fitted.epochs,
        "best_epoch": fitted.best_epoch,
        "agreement": rows,
        "ablations": taken_out,
        "history": list(fitted.history),
    }
    return BoxFit(fitted, content)


def ablations(fitted: FitResult[BoxRegressor], data: Collection, seed: int = 0) -> list[dict[str, Any]]:
    """Measure the predictions for the held-out candidates as fitted, with even attention instead of their own, with the
    attention of another candidate, and with their attention read in the box of another candidate.

    Returns:
        Rows of ``fit.json``, with "chosen_iou": the mean IoU of the box of highest prediction, over the pairs with
        several held-out candidates. Where several are highest, their mean counts.
    """
    index = fitted.validation
    other = np.random.default_rng(seed).permutation(index)
    predictions = {
        "own attention, own box": fitted.predicted,
        "even attention, own box": _with_even_attention(fitted.regressor, data, index),
        "attention of another candidate, own box": predict(fitted.regressor, data, other, in_boxes_of=index),
        "own attention, box of another candidate": predict(fitted.regressor, data, index, in_boxes_of=other),
    }
    temperature, truth = data.manifest.get("temperature"), data.iou[index]
    return [
        row(f"held-out images, {what}", temperature, "all", agreement(predicted, truth))
        | {"chosen_iou": round(chosen_iou(predicted, truth, data.pair[index]), 4)}
        for what, predicted in predictions.items()
    ]


def chosen_iou(predicted: np.ndarray, iou: np.ndarray, pair: np.ndarray) -> float:
    """Return the mean IoU of the candidate of highest prediction of each pair, over the pairs with several candidates.

    Args:
        predicted: (C,) predictions; the mean of candidates with the same highest one counts.
        iou: (C,) true IoU.
        pair: (C,) pair of each candidate.

    Returns:
        The mean in [0, 1]; 0 without such a pair.
    """
    found = []
    for number in np.unique(pair):
        mine = pair == number
        if mine.sum() >= 2:
            found.append(iou[mine][predicted[mine] == predicted[mine].max()].mean())
    return float(np.mean(found)) if found else 0.0


def _with_even_attention(regressor: BoxRegressor, data: Collection, index: np.ndarray) -> np.ndarray:
    """Return what ``regressor`` predicts for the candidates ``index`` if all attention is spread evenly."""
    h, w = data.maps.shape[-2:]
    even = torch.full((1, *data.maps.shape[1:]), 1.0 / (h * w))
    with torch.inference_mode():
        parts = [
            regressor(even.expand(len(part), -1, -1, -1, -1, -1), part) for part in boxes_of(data)[index].split(256)
        ]
    found = torch.cat(parts).numpy()
    if np.ptp(found) >= SAME:
        return found
    # The same number, with few binary digits, so that it is exactly its mean.
    return np.full(len(found), round(float(found.mean()) * 4096) / 4096)


def _one(device: str) -> str:
    """Return the one device that ``device`` stands for."""
    if device != "auto":
        return device
    return "cuda:0" if torch.cuda.is_available() else "cpu"
