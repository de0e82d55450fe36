"""From collections to runs: what every method answers to the same sampled candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from acs_core.attention import Evidence
from acs_core.choice import Choice, Overlapping
from acs_core.clusters import overlaps
from acs_core.geometry import Box
from acs_core.judging import Judge, why_no_candidates
from acs_core.selection import AcsLearned
from acs_core.types import COORDINATES, Candidate, ScoreKind
from acs_eval.records import Answer, EntropyProfile, Run
from training.errors import DataError
from training.offline_choice import Call, calls
from training.pairs import Pair
from training.store import Collection

# The rows of the paper that are not its own method (section 5.1).
BASELINES = frozenset({"greedy", "pass-at-1", "first-valid", "token-entropy", "majority-vote", "mean-box", "smallest"})
ORACLE, RANDOM = "oracle", "random"
NMS_IOUS = (0.5, 0.8)  # of the greedy rows in table 6
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Material:
    """A collection and its ``answers`` (:func:`training.store.read_responses`), the ``pairs`` of its manifest, and the
    indices of those to answer, ``kept``. ``objects`` as in :class:`acs_eval.records.Group`. ``temperature`` is None for
    greedy answers."""

    data: Collection
    answers: Sequence[Mapping[str, object]]
    pairs: Sequence[Pair]
    kept: frozenset[int]
    objects: str
    temperature: float | None


@dataclass(frozen=True)
class Predicted:
    """IoU that a regressor predicted for candidates, and the true one, (C,) each."""

    predicted: np.ndarray
    truth: np.ndarray


@dataclass
class _Notes:
    """What is written down while going through a collection once."""

    answers: dict[tuple[str, int], list[Answer]] = field(default_factory=dict)
    predicted: list[float] = field(default_factory=list)
    truth: list[float] = field(default_factory=list)

    def note(self, method: str, count: int, answer: Answer) -> None:
        self.answers.setdefault((method, count), []).append(answer)


class _Once(AcsLearned):
    """Predicts the IoU of every candidate of a call once, whatever number of its responses is then chosen from."""

    def __init__(self, selector: AcsLearned) -> None:
        super().__init__(selector.regressor, selector.needs.map_size or (0, 0))
        self.needs = selector.needs
        self._known: dict[tuple[int, int], float] = {}

    def begin(self, call: Call) -> None:
        """Looks at all candidates of ``call``."""
        found = super().qualities(call.candidates, call.evidence, call.image_size or (1, 1)).tolist()
        self._known = {(c.response, c.order): q for c, q in zip(call.candidates, found, strict=True)}

    def qualities(self, candidates: Sequence[Candidate], evidence: Evidence, image_size: tuple[int, int]) -> np.ndarray:
        """(C,) as predicted at the beginning."""
        return np.array([self._known[c.response, c.order] for c in candidates])


def sampled_runs(
    material: Material,
    judges: Sequence[Judge],
    counts: Sequence[int],
    main: int,
    seed: int,
    progress: Progress = lambda done, total: None,
) -> tuple[tuple[Run, ...], Predicted | None]:
    """One run for each of ``judges``, and for the bounds oracle and random where one object is asked for, choosing from
    the first n responses, for each n of ``counts``; and what a regressor among the judges predicted for the candidates
    of the first ``main`` responses, None without one.

    Raises:
        DataError: a selector wants maps of another size or another step than the collection holds.
    """
    for judge in judges:
        _check_evidence(judge, material.data)
    once = [_Once(j.selector) for j in judges if isinstance(j.selector, AcsLearned)]
    predicting = {selector.name: selector for selector in once}
    judges = [replace(j, selector=predicting.get(j.selector.name, j.selector)) for j in judges]
    notes = _Notes()
    wanted = any(judge.selector.needs.maps for judge in judges)
    for done, call in enumerate(calls(material.data, wanted, material.answers)):
        progress(done, len(material.data.pairs))
        if call.pair not in material.kept:
            continue
        for selector in once:
            selector.begin(call)
        for count in counts:
            part = call.first(count)
            overlapping = Overlapping.of(part.candidates)
            for judge in judges:
                choice = _choose(judge, part, material.objects, overlapping)
                notes.note(judge.selector.name, count, _answer(choice, judge, part))
                if count == main and isinstance(judge.selector, AcsLearned):  # table 3 is about the paper's regressor
                    notes.predicted += [c.quality for c in choice.candidates]
                    notes.truth += material.data.iou[part.index].tolist()
            if material.objects == "single":
                for method, answer in _bounds(part, material, seed).items():
                    notes.note(method, count, answer)
    progress(len(material.data.pairs), len(material.data.pairs))
    learned = {judge.selector.name for judge in judges if judge.selector.score_kind is ScoreKind.PREDICTED_IOU}
    runs = tuple(
        Run(method, material.temperature, count, tuple(answers), kind_of(method), method in learned)
        for (method, count), answers in notes.answers.items()
    )
    told = Predicted(np.array(notes.predicted), np.array(notes.truth)) if notes.predicted else None
    return runs, told


def greedy_runs(material: Material, judge: Judge) -> tuple[Run, ...]:
    """The greedy answer. Where several objects are asked for, all its boxes in the order written: as they are, and
    after non-maximum suppression at each of ``NMS_IOUS``, in which the box written first wins, since greedy decoding
    scores none of them."""
    found: dict[str, list[Answer]] = {}
    for call in calls(material.data, False, material.answers):
        if call.pair not in material.kept:
            continue
        if material.objects == "single":
            found.setdefault("greedy", []).append(answer_to(call, judge, "single"))
            continue
        boxes = [c.box for c in sorted(call.candidates, key=lambda c: c.order)]
        why = "" if boxes else why_no_candidates(call.responses)
        found.setdefault("greedy", []).append(Answer(tuple(boxes), reason=why))
        for iou in NMS_IOUS:
            found.setdefault(f"greedy + NMS {iou:g}", []).append(Answer(suppressed(boxes, iou), reason=why))
    return tuple(Run(method, None, 1, tuple(answers), "baseline") for method, answers in found.items())


def answer_to(call: Call, judge: Judge, objects: str) -> Answer:
    """What ``judge`` answers; ``objects`` as in :class:`acs_eval.records.Group`."""
    return _answer(_choose(judge, call, objects), judge, call)


def suppressed(boxes: Sequence[Box], iou: float) -> tuple[Box, ...]:
    """``boxes``, the best first, without those that overlap a kept one by ``iou`` or more."""
    agree = overlaps(boxes, iou)
    kept: list[int] = []
    for i in range(len(boxes)):
        if not agree[i, kept].any():
            kept.append(i)
    return tuple(boxes[i] for i in kept)


def entropy_profiles(data: Collection) -> tuple[EntropyProfile, ...]:
    """Mean entropy of each layer's heads by IoU group and coordinate, over all candidates (figures 4 and 10). A group
    without a candidate is left out."""
    groups = {
        "IoU > 0.7": data.iou > 0.7,
        "0 < IoU ≤ 0.3": (data.iou > 0) & (data.iou <= 0.3),
        "IoU = 0": data.iou == 0,
    }
    return tuple(
        EntropyProfile(name, group, int(of.sum()), tuple(data.entropy[of, c].mean(axis=(0, 2)).tolist()))
        for c, name in enumerate(COORDINATES)
        for group, of in groups.items()
        if of.any()
    )


def kind_of(method: str) -> str:
    """As :class:`acs_eval.records.Run` has it."""
    if method in (ORACLE, RANDOM):
        return "bound"
    return "baseline" if method in BASELINES else "ours"


def _choose(judge: Judge, call: Call, objects: str, overlapping: Overlapping | None = None) -> Choice:
    size = call.image_size or (1, 1)  # without candidates nothing looks at it
    return judge.choose(
        call.candidates,
        call.responses,
        call.evidence,
        size,
        multiple=objects == "several",
        looked_again=call.looked_again,
        overlapping=overlapping,
    )


def _answer(choice: Choice, judge: Judge, call: Call) -> Answer:
    found = choice.detections
    stated = judge.kind_of(call.looked_again) is ScoreKind.CALIBRATED
    return Answer(
        boxes=tuple(d.box for d in found),
        scores=tuple(d.score for d in found) if stated else (),
        expected_iou=found[0].expected_iou if found else None,
        reason=choice.reason,
    )


def _bounds(call: Call, material: Material, seed: int) -> dict[str, Answer]:
    """The best candidate, which only the truth knows, and one drawn with ``seed`` and the pair's number."""
    if not call.candidates:
        why = why_no_candidates(call.responses)
        return {ORACLE: Answer(reason=why), RANDOM: Answer(reason=why)}
    best = int(material.data.iou[call.index].argmax())
    drawn = int(np.random.default_rng([seed, call.pair]).integers(len(call.candidates)))
    return {
        ORACLE: Answer((call.candidates[best].box,)),
        RANDOM: Answer((call.candidates[drawn].box,)),
    }


def _check_evidence(judge: Judge, data: Collection) -> None:
    step = data.manifest.get("step", "emitting")
    if judge.selector.needs.step == "consuming" != step:
        raise DataError(
            f"{judge.selector.name} looks at the consuming step, the collection holds the attention of the {step} one: "
            "evaluate with --step consuming"
        )
    reads, holds = judge.selector.needs.map_size, tuple(data.maps.shape[-2:])
    if judge.selector.needs.maps and reads and len(data.iou) and reads != holds:
        raise DataError(
            f"the regressor of {judge.selector.name} reads maps of {reads[0]} x {reads[1]} cells, the collection holds "
            f"{holds[0]} x {holds[1]}: set --map-side as it was when the regressor's data was collected"
        )
