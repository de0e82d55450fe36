"""Predictions compared with the ground truth, as arrays: IoU of the best box, and which boxes are right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from acs_core.evaluation.records import Group, Prediction, Question
from acs_core.geometry import Box, iou_matrix

MIN_IOU = 0.5  # a box is right at this IoU or above (paper section 5.1)


@dataclass(frozen=True)
class Published:
    """All M counted boxes of a run.

    Attributes:
        score: (M,) published score in [0, 1]; NaN without one.
        hit: (M,) whether the box is right.
        question: (M,) index of the box's question in the group.
    """

    score: np.ndarray
    hit: np.ndarray
    question: np.ndarray


@dataclass(frozen=True)
class Outcomes:
    """Outcomes of a group's R runs over its Q questions.

    Attributes:
        single: whether only the first box of a prediction counts.
        image: (Q,) index of each question's image, from 0.
        truths: (Q,) number of true boxes.
        area_share: (Q,) mean share of the image area that a true box covers; NaN without true boxes.
        iou: (R, Q) IoU of the first box with the true box it fits best; 0 without either.
        told: (R, Q) number of counted boxes.
        hits: (R, Q) number of right boxes.
        score: (R, Q) score of the first box; NaN without one.
        latency_ms: (R, Q) latency; NaN if not measured.
        published: the counted boxes of each run.
    """

    single: bool
    image: np.ndarray
    truths: np.ndarray
    area_share: np.ndarray
    iou: np.ndarray
    told: np.ndarray
    hits: np.ndarray
    score: np.ndarray
    latency_ms: np.ndarray
    published: tuple[Published, ...]

    @property
    def shown(self) -> np.ndarray:
        """(Q,) whether the image shows the object."""
        return self.truths > 0

    @property
    def right(self) -> np.ndarray:
        """(R, Q) whether the first box is right: Acc@0.5 is its mean over the questions that are ``shown``."""
        return self.iou >= MIN_IOU


def outcomes_of(group: Group) -> Outcomes:
    """Compare every prediction of ``group`` with the ground truth."""
    single = group.objects == "single"
    shape = len(group.runs), len(group.questions)
    iou, told, hits = np.zeros(shape), np.zeros(shape, int), np.zeros(shape, int)
    score, latency = np.full(shape, np.nan), np.full(shape, np.nan)
    published = []
    for r, run in enumerate(group.runs):
        boxes: list[tuple[float, bool, int]] = []
        for q, answer in enumerate(run.answers):
            if answer.latency_ms is not None:
                latency[r, q] = answer.latency_ms
            if not answer.boxes:
                continue
            iou[r, q], right = _judged(answer.boxes[:1] if single else answer.boxes, group.questions[q].truth)
            told[r, q], hits[r, q] = len(right), sum(right)
            stated = answer.scores or (np.nan,) * len(right)
            score[r, q] = stated[0]
            boxes += [(stated[m], hit, q) for m, hit in enumerate(right)]
        columns = zip(*boxes, strict=True) if boxes else ((), (), ())
        published.append(Published(*(np.array(c, t) for c, t in zip(columns, (float, bool, int), strict=True))))
    numbers: dict[str, int] = {}
    image = np.array([numbers.setdefault(q.image, len(numbers)) for q in group.questions], int)
    truths = np.array([len(q.truth) for q in group.questions], int)
    share = np.array([_area_share(q) for q in group.questions], float)
    return Outcomes(single, image, truths, share, iou, told, hits, score, latency, tuple(published))


def matched(overlap: np.ndarray) -> np.ndarray:
    """Return which of M boxes are right, by greedy one-to-one matching with N true boxes as in COCO's evaluation.

    The boxes are visited in order, best first. Each takes the true box with the highest IoU among those not taken yet,
    if that IoU is at least 0.5. A second box on the same object is therefore wrong.

    Args:
        overlap: (M, N) IoU of the boxes with the true boxes.

    Returns:
        (M,) bool.
    """
    free = overlap.copy()
    right = np.zeros(len(overlap), bool)
    if not overlap.size:
        return right
    for m in range(len(free)):
        n = int(free[m].argmax())
        if free[m, n] >= MIN_IOU:
            right[m] = True
            free[:, n] = -1.0
    return right


def check_answer(answer: Prediction, where: str) -> None:
    """Check the scores and confidences of a prediction: one per box or none, all in [0, 1].

    Raises:
        ValueError: they are not; the message begins with ``where``.
    """
    if answer.scores and len(answer.scores) != len(answer.boxes):
        raise ValueError(f"{where}: {len(answer.scores)} scores for {len(answer.boxes)} boxes; give one each, or none")
    if answer.confidences and len(answer.confidences) != len(answer.boxes):
        raise ValueError(
            f"{where}: {len(answer.confidences)} confidences for {len(answer.boxes)} boxes; give one each, or none"
        )
    stated = (*answer.scores, *answer.confidences, *(() if answer.expected_iou is None else (answer.expected_iou,)))
    if not all(0 <= value <= 1 for value in stated):
        raise ValueError(f"{where}: scores, confidences and expected IoU lie in [0, 1], got {stated}")


def _judged(boxes: Sequence[Box], truth: Sequence[Box]) -> tuple[float, list[bool]]:
    """Return the best IoU of the first box, and whether each box is right."""
    if len(boxes) == 1:  # the usual case, faster without arrays
        best = max((boxes[0].iou(t) for t in truth), default=0.0)
        return best, [best >= MIN_IOU]
    overlap = iou_matrix(*(np.array([b.as_tuple() for b in several], float) for several in (boxes, truth)))
    return float(overlap[0].max(initial=0.0)), matched(overlap).tolist()


def _area_share(question: Question) -> float:
    width, height = question.image_size
    if not question.truth or width * height <= 0:
        return float("nan")
    return float(np.mean([box.area for box in question.truth])) / (width * height)
