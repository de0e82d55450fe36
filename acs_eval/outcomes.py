"""Answers as arrays: the IoU of each method's best box for each question, and which of its boxes are right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from acs_core.geometry import Box, iou_matrix
from acs_eval.records import Answer, Group, Question

MIN_IOU = 0.5  # from which on a box is right (paper section 5.1)


@dataclass(frozen=True)
class Published:
    """Every counted box of a run, all (M,): ``score`` it was published with, NaN without one, ``hit`` whether it is
    right, ``question`` its question's place in the group."""

    score: np.ndarray
    hit: np.ndarray
    question: np.ndarray


@dataclass(frozen=True)
class Outcomes:
    """A group's R runs over its Q questions.

    ``image`` (Q,) numbers the pictures from 0 on; ``truths`` (Q,) is how many true boxes there are, ``area_share``
    (Q,) the mean share of the picture that one covers, NaN without any. ``iou`` (R, Q) is that of the first box with
    the true box it fits best, 0 without a box or without a true one. ``told`` (R, Q) counts the boxes, ``hits`` (R, Q)
    the right ones among them. Where one box is asked for (``single``) only the first counts. ``score`` (R, Q) of the
    first box and ``latency_ms`` (R, Q) are NaN where not stated. ``published`` has the single boxes of each run.
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
        """(Q,) whether the picture shows what was asked for."""
        return self.truths > 0

    @property
    def right(self) -> np.ndarray:
        """(R, Q) whether the first box is right: Acc@0.5 is its mean over the questions that are ``shown``."""
        return self.iou >= MIN_IOU


def outcomes_of(group: Group) -> Outcomes:
    """Compares every answer of ``group`` with the truth."""
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
    """Which of M boxes are right, (M,) bool, from their IoU (M, N) with the true ones: in their order, the best first,
    each takes the true box it fits best among those not taken, if their IoU is at least 0.5. So no true box counts
    twice, and a second box about one object is wrong (the matching of COCO's own evaluation)."""
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


def check_answer(answer: Answer, where: str) -> None:
    """Raises ValueError, naming ``where``, unless the answer is one that :class:`Answer` describes."""
    if answer.scores and len(answer.scores) != len(answer.boxes):
        raise ValueError(f"{where}: {len(answer.scores)} scores for {len(answer.boxes)} boxes; give one each, or none")
    stated = (*answer.scores, *(() if answer.expected_iou is None else (answer.expected_iou,)))
    if not all(0 <= value <= 1 for value in stated):
        raise ValueError(f"{where}: scores and expected IoU lie in [0, 1], got {stated}")


def _judged(boxes: Sequence[Box], truth: Sequence[Box]) -> tuple[float, list[bool]]:
    """The best IoU of the first box, and which boxes are right."""
    if len(boxes) == 1:  # almost always: no arrays for two boxes
        best = max((boxes[0].iou(t) for t in truth), default=0.0)
        return best, [best >= MIN_IOU]
    overlap = iou_matrix(*(np.array([b.as_tuple() for b in several], float) for several in (boxes, truth)))
    return float(overlap[0].max(initial=0.0)), matched(overlap).tolist()


def _area_share(question: Question) -> float:
    width, height = question.image_size
    if not question.truth or width * height <= 0:
        return float("nan")
    return float(np.mean([box.area for box in question.truth])) / (width * height)
