"""Records of an evaluation: questions with their true boxes, and the predictions of the methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from acs_core.geometry import Box

OBJECTS = ("single", "several")
SECOND_LOOK = " + second look"  # ends the names of methods with a second look, which costs further responses
EVEN_ATTENTION = " on even attention"  # ends the names of methods whose attention was taken out, as an ablation
CALIBRATED_ON = "images of the calibrations"  # fact of an evaluation that also stands below its tables


@dataclass(frozen=True)
class Question:
    """An image and a phrase, with the true boxes.

    Attributes:
        key: name of the question, the same in every evaluation of the same data ("139:key": image id and phrase).
        phrase: the phrase.
        category: category to filter by: the phrase, unless phrases are sentences.
        image: path or name of the image; questions with the same value are about the same image.
        image_size: (width, height) in pixels.
        truth: all true boxes in pixels of the image; empty if the object is not in it.
    """

    key: str
    phrase: str
    category: str
    image: str
    image_size: tuple[int, int]
    truth: tuple[Box, ...]


@dataclass(frozen=True)
class Prediction:
    """Prediction of a method for one question.

    Attributes:
        boxes: in pixels of the image, best first; empty if the method abstained or failed.
        scores: one per box, in [0, 1]: the probability that its IoU is at least 0.5; empty if the method has no scores.
        expected_iou: expected IoU of the best box; None if the method has none.
        confidences: one per box, in [0, 1]: the selector's confidence where it publishes no score. Comparable between
            questions, so that boxes can be ranked by it (average precision), but no probability; empty if it has none.
        latency_ms: wall time in milliseconds; None if it was not measured.
        reason: why there is no box.
    """

    boxes: tuple[Box, ...] = ()
    scores: tuple[float, ...] = ()
    expected_iou: float | None = None
    latency_ms: float | None = None
    reason: str = ""
    confidences: tuple[float, ...] = ()


@dataclass(frozen=True)
class Run:
    """Predictions of a method under one setting.

    Attributes:
        method: name of the method.
        temperature: sampling temperature; None without sampling.
        samples: number of responses that the method selected from.
        answers: one prediction per question of the :class:`Group`, in its order.
        kind: "baseline", "ours" or "bound" (a reference such as the best of N by ground truth, a random choice, or a
            method on even attention).
        learned: whether the method was fitted on data with true boxes; training-free methods are also ranked among
            themselves.
    """

    method: str
    temperature: float | None
    samples: int
    answers: tuple[Prediction, ...]
    kind: str = "ours"
    learned: bool = False


@dataclass(frozen=True)
class Group:
    """Questions of one kind with all runs over them.

    Attributes:
        name: name of the group.
        objects: "single" (one true box; only the first predicted box counts: Acc@0.5, mIoU) or "several" (every
            predicted box counts: precision, recall, F1).
        questions: the questions.
        runs: the runs, each with one prediction per question.

    Raises:
        ValueError: ``objects`` is another word, a run does not have one prediction per question, or two runs have the
            same method and setting.
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
class RegressorAccuracy:
    """Accuracy of a regressor's IoU predictions (paper table 3).

    Attributes:
        temperature: temperature at which the candidates were sampled.
        count: number of candidates.
        mae: mean absolute error.
        pearson: Pearson correlation.
        group: name of the :class:`Group` whose questions the candidates belong to.
    """

    temperature: float
    count: int
    mae: float
    pearson: float
    group: str = ""


@dataclass(frozen=True)
class EntropyProfile:
    """Mean attention entropy by layer over candidates of one IoU range (paper figures 4 and 10).

    Attributes:
        coordinate: "x1", "y1", "x2" or "y2": the coordinate whose attention was measured.
        iou_group: name of the range, such as "IoU > 0.7".
        count: number of candidates.
        by_layer: mean entropy of each layer in nats, from the first layer on.
    """

    coordinate: str
    iou_group: str
    count: int
    by_layer: tuple[float, ...]


@dataclass(frozen=True)
class Evaluation:
    """All groups of one model on one dataset.

    Attributes:
        title: title for reports.
        groups: the groups; their names are distinct.
        facts: what is needed to reproduce it: model, revision, weights, data, seed, versions, date, machine.
        regressions: accuracy of the regressor, per temperature and group.
        entropy: entropy profiles.
        critical_layers: layers to mark in the entropy charts.

    Raises:
        ValueError: two groups have the same name.
    """

    title: str
    groups: tuple[Group, ...]
    facts: Mapping[str, str] = field(default_factory=dict)
    regressions: tuple[RegressorAccuracy, ...] = ()
    entropy: tuple[EntropyProfile, ...] = ()
    critical_layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        names = [group.name for group in self.groups]
        if len(set(names)) < len(names):
            raise ValueError(f"each group needs a name of its own, got {', '.join(names)}")
