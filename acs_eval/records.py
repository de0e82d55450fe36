"""What an evaluation is made of: questions with their true boxes, and what methods answered to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from acs_core.geometry import Box

OBJECTS = ("single", "several")


@dataclass(frozen=True)
class Question:
    """A picture and what was asked about it.

    ``key`` names the question, and is the same in every evaluation of the same data ("139:key", image id and phrase).
    ``image`` is where the picture is found again (questions with the same one are about one picture), ``image_size``
    its (width, height) in pixels. ``truth`` are all true boxes in pixels of the picture, none where it does not show
    the thing. ``category`` is what one filters by: the phrase, unless phrases are sentences.
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
    Acc@0.5, mIoU) or "several" (every answered box counts: precision, recall, F1).

    Raises:
        ValueError: another word for ``objects``, a run without one answer for each question, or two runs of one method
            under the same setting.
    """

    name: str
    objects: str
    questions: tuple[Question, ...]
    runs: tuple[Run, ...]

    def __post_init__(self) -> None:
        if self.objects not in OBJECTS:
            raise ValueError(f'group "{self.name}": objects must be "single" or "several", not {self.objects!r}')
        seen = set()
        for run in self.runs:
            if len(run.answers) != len(self.questions):
                raise ValueError(
                    f'group "{self.name}": the run of {run.method} has {len(run.answers)} answers to '
                    f"{len(self.questions)} questions; each question needs one"
                )
            setting = (run.method, run.temperature, run.samples)
            if setting in seen:
                raise ValueError(
                    f'group "{self.name}": two runs of {run.method} at temperature {run.temperature} with '
                    f"{run.samples} samples; only one can be shown"
                )
            seen.add(setting)


@dataclass(frozen=True)
class Regression:
    """How well a regressor predicts the IoU of ``count`` candidates sampled at ``temperature`` (paper table 3): mean
    absolute error and Pearson r. ``group`` names the :class:`Group` whose questions they answer."""

    temperature: float
    count: int
    mae: float
    pearson: float
    group: str = ""


@dataclass(frozen=True)
class EntropyProfile:
    """Mean attention entropy in nats of each layer, from the first on, over the ``count`` candidates whose IoU lies in
    one group ("IoU > 0.7", ...), when ``coordinate`` ("x1", ...) was written (paper figures 4 and 10)."""

    coordinate: str
    iou_group: str
    count: int
    by_layer: tuple[float, ...]


@dataclass(frozen=True)
class Evaluation:
    """All groups of one model on one data set. ``facts`` are what a reader must know to make it again: model, revision,
    weights, data, seed, versions, date, machine. ``critical_layers`` are the ones to mark in ``entropy``.

    Raises:
        ValueError: two groups of one name.
    """

    title: str
    groups: tuple[Group, ...]
    facts: Mapping[str, str] = field(default_factory=dict)
    regressions: tuple[Regression, ...] = ()
    entropy: tuple[EntropyProfile, ...] = ()
    critical_layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        names = [group.name for group in self.groups]
        if len(set(names)) < len(names):
            raise ValueError(f"each group needs a name of its own, got {', '.join(names)}")
