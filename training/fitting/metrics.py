"""Agreement of predicted with true IoU (paper table 3, section 4.2, appendix B), as numbers and as text for
``fit.json``, the model card and the commands."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sklearn.feature_selection import mutual_info_regression

from training.collection.store import Collection

BINS = 50  # of the histogram for H(Y); as many as a few thousand candidates allow
MIN_KSG = 20  # minimum number of candidates for the nearest-neighbour estimate
MIN_KIND = 50  # minimum number of candidates of a kind of pair for a row of its own


@dataclass(frozen=True)
class Agreement:
    """Agreement of predicted with true IoU.

    Attributes:
        count: number of candidates.
        mae: mean absolute error.
        mse: mean squared error.
        pearson: Pearson correlation; 0 if either is constant.
        information: lower bound of the mutual information I(f(A); Y) in nats, as in section 4.2: H(Y), from a histogram
            of the IoU, minus the largest H(Y | f(A)) that an error of this MSE can have, that of a Gaussian (appendix
            B). 0 where this is negative, which it often is, since IoU is bounded and often exactly 0: then the bound
            says nothing.
        information_knn: Kraskov's nearest-neighbour estimate in nats, which assumes no distribution.
    """

    count: int
    mae: float
    mse: float
    pearson: float
    information: float
    information_knn: float


def agreement(predicted: np.ndarray, truth: np.ndarray) -> Agreement:
    """Compute the agreement of predictions (C,) with true IoU (C,).

    Raises:
        ValueError: no candidates, or different numbers of both.
    """
    if not len(truth) or predicted.shape != truth.shape:
        raise ValueError(f"{predicted.shape} predictions of {truth.shape} values: one is needed for each of them")
    predicted, truth = predicted.astype(np.float64), truth.astype(np.float64)
    error = predicted - truth
    mse = float((error**2).mean())
    flat = predicted.std() == 0 or truth.std() == 0
    pearson = 0.0 if flat else float(np.corrcoef(predicted, truth)[0, 1])
    noise = 0.5 * math.log(2 * math.pi * math.e * max(mse, 1e-12))
    knn = 0.0
    if not flat and len(truth) >= MIN_KSG:
        knn = float(mutual_info_regression(predicted[:, None], truth, random_state=0)[0])
    return Agreement(
        len(truth), float(np.abs(error).mean()), mse, pearson, max(0.0, entropy_of_iou(truth) - noise), knn
    )


def entropy_of_iou(truth: np.ndarray, bins: int = BINS) -> float:
    """Compute the differential entropy H(Y) in nats of values in [0, 1], from a histogram of ``bins`` cells: 0 for a
    uniform distribution, negative otherwise."""
    share = np.histogram(truth, bins=bins, range=(0.0, 1.0))[0] / max(1, len(truth))
    filled = share[share > 0]
    return float(-(filled * np.log(filled * bins)).sum())


def agreements(predicted: np.ndarray, index: np.ndarray, data: Collection) -> list[dict[str, Any]]:
    """Return the rows of ``fit.json`` for the predictions of the held-out candidates ``index``: one for all of them,
    and one for each kind of pair with at least ``MIN_KIND`` candidates."""
    kinds, truth = data.kinds[index], data.iou[index]
    temperature = data.manifest.get("temperature")
    rows = [row("held-out images", temperature, "all", agreement(predicted, truth))]
    for kind in sorted(set(kinds.tolist()) - {""}):
        here = kinds == kind
        if MIN_KIND <= here.sum() < len(index):
            rows.append(row("held-out images", temperature, kind, agreement(predicted[here], truth[here])))
    return rows


def row(where: str, temperature: Any, kind: str, told: Agreement) -> dict[str, Any]:
    """Return one row of ``fit.json``: the images, their temperature and kind of pair, and the agreement."""
    numbers = {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(told).items()}
    return {"where": where, "temperature": temperature, "kind": kind, **numbers}


def in_words(row: dict[str, Any]) -> str:
    """Return the row as a sentence."""
    bound = f"at least {row['information']:.2f} nats" if row["information"] > 0 else "no bound"
    information = f"{bound} by section 4.2, about {row['information_knn']:.2f} nats by nearest neighbours"
    return (
        f"{row['where']}, tau {row['temperature']}, {row['kind']}: MAE {row['mae']:.3f}, "
        f"Pearson r {row['pearson']:.3f}, mutual information {information}; {row['count']} candidates"
    )
