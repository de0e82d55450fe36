"""A small score model, and evidence for it."""

import numpy as np

from acs_core.artifacts.score_model import ScoreModel
from acs_core.artifacts.trees import Trees


def one_split(feature, names, threshold=0.5, low=0.1, high=0.8):
    """A score model of one tree: ``low`` where the feature is at most the threshold, else ``high``."""
    trees = Trees(
        np.array([[names.index(feature), 0, 0]]),
        np.array([[threshold, 0.0, 0.0]]),
        np.array([[[1, 2], [1, 1], [2, 2]]]),
        np.array([[0.0, low, high]]),
        0.0,
        len(names),
    )
    return ScoreModel(tuple(names), trees)
