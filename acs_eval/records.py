"""What an evaluation is made of: questions with their true boxes, and what methods answered to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from acs_core.geometry import Box


@dataclass(frozen=True)
class Question:
    """A picture and what was asked about it.

    ``key`` names the question, and is the same in every evaluation of the same data ("139:key", image id and phrase).
    ``image`` is where the picture is found again, ``image_size`` its (width, height) in pixels. ``truth`` are all true
    boxes in pixels of the picture, none where it does not show the thing. ``category`` is what one filters by: the
    phrase, unless phrases are sentences.
    """

    key: str
    phrase: str
    category: str
    image: str
    image_size: tuple[int, int]
    truth: tuple[Box, ...]


@dataclass(frozen=True)
class Answer:
    """What a method answered to one question.

    ``boxes`` in pixels of the picture, the best first; none where it abstained or failed, and ``reason`` says why.
    ``scores`` in [0, 1], one per box, the probability that its IoU is at least 0.5; empty where the method states none.
    ``expected_iou`` of the best box, where the method states it. ``latency_ms`` is the wall time of the answer, where
    it was measured.
    """

    boxes: tuple[Box, ...] = ()
    scores: tuple[float, ...] = ()
    expected_iou: float | None = None
    latency_ms: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Run:
    """A ``method``'s answers under one setting, one for each question of its :class:`Group`, in their order.

    ``temperature`` is None where nothing was sampled, and ``samples`` how many responses it chose from. ``kind``:
    "baseline", "ours" or "bound" (what no method can know, such as the best of N). ``learned``: whether something
    was fitted for it on data with true boxes (training-free methods are compared among themselves, too).
    """

    method: str
    temperature: float | None
    samples: int
    answers: tuple[Answer, ...]
    kind: str = "ours"
    learned: bool = False


@dataclass(frozen=True)
class Group:
    """Questions of one sort with all runs over them. ``objects``: "single" (one true box, one answered box counts:
    Acc@0.5, mIoU) or "several" (every answered box counts: precision, recall, F1)."""

    name: str
    objects: str
    questions: tuple[Question, ...]
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Evaluation:
    """All groups of one model on one data set. ``facts`` are what a reader must know to make it again: model, revision,
    weights, data, seed, versions, date, machine."""

    title: str
    groups: tuple[Group, ...]
    facts: Mapping[str, str] = field(default_factory=dict)
