"""Fitting of the score model of a calibration (:mod:`acs_core.artifacts.score_model`)."""

from __future__ import annotations

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

from acs_core.artifacts.score_model import ScoreModel
from acs_core.selection.evidence import FEATURES
from training.fitting.fit_joint import trees_of
from training.fitting.score_rows import ScoreRows

FOLDS = 5
HIT = 0.5  # minimum IoU of a right box
# Few, small, strongly regularised trees: a calibration has some hundred to some thousand answers.
TREES, LEAVES, LEAF_ROWS, RATE, L2 = 80, 8, 25, 0.08, 5.0


def fit_score_model(rows: ScoreRows, used: np.ndarray, seed: int = 0) -> ScoreModel:
    """Fit trees to the share of right boxes of the rows ``used``, (N,) bool.

    The score cannot fall when a feature rises that speaks for the box, nor rise when one does that speaks against it.

    Raises:
        DataError: the installed scikit-learn stores its trees differently.
    """
    features, hit = rows.features[used], (rows.iou[used] >= HIT).astype(float)
    model = HistGradientBoostingRegressor(
        max_iter=TREES,
        learning_rate=RATE,
        max_leaf_nodes=LEAVES,
        min_samples_leaf=LEAF_ROWS,
        l2_regularization=L2,
        monotonic_cst=[FEATURES[name].direction for name in rows.names],
        early_stopping=False,
        random_state=seed,
    ).fit(features, hit)
    return ScoreModel(rows.names, trees_of(model, features)).rounded()


def folds(image: np.ndarray, seed: int) -> np.ndarray:
    """Divide the images of N rows into FOLDS parts at random: (N,) numbers of the parts."""
    unique, inverse = np.unique(image, return_inverse=True)
    return np.asarray(np.random.default_rng(seed).permutation(len(unique))[inverse] % FOLDS)


def out_of_fold_estimates(rows: ScoreRows, fold: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the estimate for each row, (N,), of a model that was fitted without the row's part ``fold`` (N,)."""
    estimates = np.zeros(len(rows.iou))
    for k in np.unique(fold):
        here = fold == k
        estimates[here] = fit_score_model(rows, ~here, seed).predict(rows.features[here])
    return estimates
