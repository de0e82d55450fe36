"""Fits the curve from a selector's confidence to the probability that its chosen box has IoU >= 0.5."""

from __future__ import annotations

import numpy as np
from sklearn.isotonic import IsotonicRegression

from acs_core.calibration import Calibration
from acs_core.identity import ModelIdentity
from acs_core.selection import Selector
from training.errors import DataError
from training.offline_choice import choose_offline
from training.store import Collection

MIN_CHOICES = 50


def calibrate(selector: Selector, data: Collection, identity: ModelIdentity, made_by: str) -> Calibration:
    """Isotonic regression over the *chosen* boxes of ``data``, which must be images that the selector was not made
    from. The chosen ones alone: of many candidates the best-looking one looks too good, and it is what is published.

    Raises:
        DataError: the selector states no confidence, or fewer than 50 pairs got a box.
    """
    choices = choose_offline(selector, data)
    known = np.isfinite(choices.confidence)
    if selector.feature and int(known.sum()) < MIN_CHOICES:
        raise DataError(
            f"{int(known.sum())} answered pairs are too few to calibrate {selector.name}: at least {MIN_CHOICES}"
        )
    if not selector.feature:
        raise DataError(f"the selector {selector.name} states no confidence, so there is nothing to calibrate")
    x, hit = choices.confidence[known], (choices.iou[known] >= 0.5).astype(float)
    # 0.01 and 0.99: a few hundred pairs never justify certainty
    curve = IsotonicRegression(y_min=0.01, y_max=0.99, out_of_bounds="clip").fit(x, hit)
    knots_x, keep = np.unique(np.round(curve.X_thresholds_, 6), return_index=True)
    knots_y = np.round(curve.y_thresholds_[keep], 6)
    return Calibration(
        identity,
        selector.name,
        selector.feature,
        tuple(knots_x.tolist()),
        tuple(np.maximum.accumulate(knots_y).tolist()),
        int(known.sum()),
        made_by,
    )


def calibration_error(probability: np.ndarray, hit: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error: mean gap between stated and observed share of hits, over ``bins`` equal groups by
    rank, weighted by their size; in [0, 1]."""
    order = np.argsort(probability)
    groups = [g for g in np.array_split(order, bins) if len(g)]
    gaps = [abs(float(probability[g].mean() - hit[g].mean())) * len(g) for g in groups]
    return sum(gaps) / max(1, len(order))
