"""How a model errs: by pixels on the right object, or in the object (the regime of the paper's models).

If all samples of a question lie on one object, there is no object to choose, and the mean of the boxes is better than
each of them. In the paper the samples differ in the object: the mean box is far worse than the first valid one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from acs_core.evaluation.statistics import ON_OBJECT
from acs_core.geometry import iou_matrix, union_find
from training.collection.offline_selection import Choices
from training.collection.store import Collection

GOOD = 0.5  # IoU of a right box


@dataclass(frozen=True)
class Regime:
    """Errors of the samples of P questions about single objects.

    Attributes:
        first_valid: accuracy of the first valid box, in percent.
        mean_box: accuracy of the mean box minus that of the first valid one, in percentage points.
        smallest: accuracy of the smallest box minus that of the first valid one, in percentage points.
        split: percentage of the questions with samples on the object and samples off it.
        object_gain: percentage points that a perfect choice of the object gains over a random sample.
        box_gain: percentage points that a perfect choice of the box gains beyond that.
    """

    first_valid: float
    mean_box: float
    smallest: float
    split: float
    object_gain: float
    box_gain: float


def regime_of(data: Collection) -> Regime:
    """Return the errors of the samples in ``data``. A question without a box counts as wrong.

    Raises:
        DataError: the collection does not hold the true boxes.
    """
    rows = np.array([_question(data, pair) for pair in data.pairs.tolist()], float).reshape(-1, 7)
    first, mean, small, random_pick, right_object, best, split = 100 * rows.mean(axis=0)
    return Regime(first, mean - first, small - first, split, right_object - random_pick, best - right_object)


def split_questions(data: Collection) -> np.ndarray:
    """Return which pairs have samples on the object and samples off it, (P,) bool."""
    return np.array([_is_split(data.iou[data.pair == pair]) for pair in data.pairs.tolist()], bool)


def right_object_rate(chosen: Choices, split: np.ndarray) -> float | None:
    """Return the percentage of the ``split`` questions (P,) whose chosen box lies on the object; None if there is
    none."""
    return 100 * float((chosen.iou[split] > ON_OBJECT).mean()) if split.any() else None


def _is_split(iou: np.ndarray) -> bool:
    return bool((iou > ON_OBJECT).any() and (iou <= 0).any())


def _question(data: Collection, pair: int) -> tuple[float, ...]:
    """Return of one question: whether the first, mean and smallest box are right, the share of right boxes among all
    and among those on the best object, whether any is right, and whether the samples are split."""
    rows = np.flatnonzero(data.pair == pair)
    if not len(rows):
        return (0.0,) * 7
    rows = rows[np.lexsort((data.order[rows], data.response[rows]))]
    boxes, iou = data.box[rows], data.iou[rows]
    truth = np.array([box.as_tuple() for box in data.truth(pair)])
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    group = np.array(union_find(iou_matrix(boxes, boxes) > 0))
    best_of_group = np.array([iou[group == g].max() for g in group])
    on_best = best_of_group >= best_of_group.max()
    good = iou >= GOOD
    mean_right = bool(iou_matrix(boxes.mean(axis=0), truth).max() >= GOOD)
    facts = (good[0], mean_right, good[area.argmin()], good.mean(), good[on_best].mean(), good.any(), _is_split(iou))
    return tuple(map(float, facts))
