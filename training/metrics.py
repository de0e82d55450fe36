"""How well predicted IoU agrees with the true one (paper table 3, section 4.2, appendix B)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from sklearn.feature_selection import mutual_info_regression

BINS = 50  # of the histogram behind H(Y); as fine as a few thousand candidates allow
MIN_KSG = 20  # candidates below which nearest neighbours say nothing


@dataclass(frozen=True)
class Agreement:
    """``count`` candidates; ``mae``, ``mse`` and ``pearson`` of prediction and truth (0 where either never changes).

    ``information`` is I(f(A); Y) in nats as section 4.2 writes it: H(Y) - H(Y | f(A)), the second term of a Gaussian
    error of variance MSE (appendix B), the first from a histogram of the IoU. IoU is bounded and piles up at 0, which
    the Gaussian does not know, so the sum can be below 0; ``information_knn`` (Kraskov, nearest neighbours) assumes no
    shape."""

    count: int
    mae: float
    mse: float
    pearson: float
    information: float
    information_knn: float


def agreement(predicted: np.ndarray, truth: np.ndarray) -> Agreement:
    """Of predictions (C,) with true IoU (C,).

    Raises:
        ValueError: no candidates, or not as many of both.
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
    return Agreement(len(truth), float(np.abs(error).mean()), mse, pearson, entropy_of_iou(truth) - noise, knn)


def entropy_of_iou(truth: np.ndarray, bins: int = BINS) -> float:
    """Differential entropy H(Y) in nats of values in [0, 1], from a histogram of ``bins`` cells: 0 where they are
    spread evenly, below 0 elsewhere."""
    share = np.histogram(truth, bins=bins, range=(0.0, 1.0))[0] / max(1, len(truth))
    filled = share[share > 0]
    return float(-(filled * np.log(filled * bins)).sum())
