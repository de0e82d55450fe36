"""How well predicted IoU agrees with the true one, as ``fit.json``, the model card and the commands tell it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from training.metrics import Agreement, agreement
from training.store import Collection

MIN_KIND = 50  # candidates that an agreement of one kind is told for


def agreements(predicted: np.ndarray, index: np.ndarray, data: Collection) -> list[dict[str, Any]]:
    """Of the predictions for the held-out candidates ``index``: all of them, and each kind of pair of which there are
    enough."""
    kinds, truth = data.kinds[index], data.iou[index]
    temperature = data.manifest.get("temperature")
    rows = [row("held-out images", temperature, "all", agreement(predicted, truth))]
    for kind in sorted(set(kinds.tolist()) - {""}):
        here = kinds == kind
        if MIN_KIND <= here.sum() < len(index):
            rows.append(row("held-out images", temperature, kind, agreement(predicted[here], truth[here])))
    return rows


def row(where: str, temperature: Any, kind: str, told: Agreement) -> dict[str, Any]:
    """One line of ``fit.json``: which images, their temperature and kind of pair, and the agreement."""
    numbers = {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(told).items()}
    return {"where": where, "temperature": temperature, "kind": kind, **numbers}


def in_words(row: dict[str, Any]) -> str:
    """The line for people."""
    information = f"{row['information']:.2f} nats by section 4.2, {row['information_knn']:.2f} by nearest neighbours"
    return (
        f"{row['where']}, tau {row['temperature']}, {row['kind']}: MAE {row['mae']:.3f}, "
        f"Pearson r {row['pearson']:.3f}, mutual information {information}; {row['count']} candidates"
    )
