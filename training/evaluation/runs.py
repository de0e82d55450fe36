"""Runs from collections: the answers of every method to the same sampled candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from acs_core.attention import AttentionRecord
from acs_core.evaluation.records import EVEN_ATTENTION, EntropyProfile, Prediction, Run
from acs_core.geometry import Box, overlaps
from acs_core.selection.decision import Decision, Overlapping, why_no_candidates
from acs_core.selection.registry import (
    AcsLearned,
    AcsLearnedBox,
    TokenUncertainty,
    VerbalConfidence,
    is_baseline,
    is_learned,
)
from acs_core.selection.scorer import Scorer
from acs_core.types import COORDINATES, Candidate
from training.collection.offline_selection import Call, calls, hidden_of
from training.collection.store import Collection
from training.data.pairs import Pair
from training.errors import DataError

ORACLE, RANDOM = "oracle", "random"
NMS_IOUS = (0.5, 0.8)  # thresholds of the greedy rows in table 6
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class RunInput:
    """Input of the runs.

    Attributes:
        data: the collection.
        answers: responses of the collection (:func:`training.collection.store.read_responses`).
        pairs: pairs of the manifest.
        kept: indices of the pairs to answer.
        objects: as in :class:`acs_core.evaluation.records.Group`.
        temperature: sampling temperature; None for greedy decoding.
    """

    data: Collection
    answers: Sequence[Mapping[str, object]]
    pairs: Sequence[Pair]
    kept: frozenset[int]
    objects: str
    temperature: float | None


@dataclass(frozen=True)
class Predicted:
    """Predicted and true IoU of candidates, (C,) each."""

    predicted: np.ndarray
    truth: np.ndarray


@dataclass
class _Notes:
    """Answers and predictions gathered in one pass over a collection."""

    answers: dict[tuple[str, int], list[Prediction]] = field(default_factory=dict)
    predicted: list[float] = field(default_factory=list)
    truth: list[float] = field(default_factory=list)

    def note(self, method: str, count: int, answer: Prediction) -> None:
        self.answers.setdefault((method, count), []).append(answer)


class _Once(AcsLearned):
    """ACS-Learned that predicts each candidate of a call only once, for all numbers of responses to choose from."""

    def __init__(self, selector: AcsLearned) -> None:
        super().__init__(selector.regressor, selector.needs.map_size or (0, 0))
        self.needs = selector.needs
        self._known: dict[tuple[int, int], float] = {}

    def begin(self, call: Call) -> None:
        """Predict the IoU of all candidates of ``call``."""
        found = super().qualities(call.candidates, call.record, call.image_size or (1, 1)).tolist()
        self._known = {(c.response, c.order): q for c, q in zip(call.candidates, found, strict=True)}

    def qualities(
        self, candidates: Sequence[Candidate], record: AttentionRecord, image_size: tuple[int, int]
    ) -> np.ndarray:
        """Return the predictions of :meth:`begin` for ``candidates``, (C,)."""
        return np.array([self._known[c.response, c.order] for c in candidates])


class _EvenLearned(AcsLearned):
    """ACS-Learned whose predictions are equal where they differ by rounding alone, as on even attention."""

    def qualities(
        self, candidates: Sequence[Candidate], record: AttentionRecord, image_size: tuple[int, int]
    ) -> np.ndarray:
        """Return (C,) predicted IoU, rounded to four digits."""
        return np.round(super().qualities(candidates, record, image_size), 4)


class _EvenLearnedBox(AcsLearnedBox):
    """ACS-Learned-Box, likewise."""

    def qualities(
        self, candidates: Sequence[Candidate], record: AttentionRecord, image_size: tuple[int, int]
    ) -> np.ndarray:
        """Return (C,) predicted IoU, rounded to four digits."""
        return np.round(super().qualities(candidates, record, image_size), 4)


def _on_even_attention(scorer: Scorer) -> Scorer:
    """Return ``scorer`` for records of :meth:`AttentionRecord.evened`."""
    selector = scorer.selector
    if isinstance(selector, AcsLearnedBox):
        return replace(scorer, selector=_EvenLearnedBox(selector.regressor, selector.needs.map_size or (0, 0)))
    if isinstance(selector, AcsLearned):
        return replace(scorer, selector=_EvenLearned(selector.regressor, selector.needs.map_size or (0, 0)))
    return scorer


def sampled_runs(
    material: RunInput,
    scorers: Sequence[Scorer],
    counts: Sequence[int],
    main: int,
    seed: int,
    progress: Progress = lambda done, total: None,
    without_attention: bool = False,
) -> tuple[tuple[Run, ...], Predicted | None]:
    """Return a run for each of ``scorers`` and each number of responses in ``counts``; if single objects are asked for,
    also for the bounds oracle and random. The selector by stated confidence is left out if no response states one.
    With ``without_attention``, there is a further run "NAME on even attention" of ``main`` responses for each selector
    that reads attention, as an ablation.

    Also returns the regressor's predictions for the candidates of the first ``main`` responses; None without a
    regressor.

    Raises:
        DataError: a selector needs maps of another size or another step than the collection holds, or a calibration
            hidden states that it does not hold.
    """
    for scorer in scorers:
        _check_evidence(scorer, material.data)
        check_hidden_states(scorer, material.data, material.answers)
    ablated = [_on_even_attention(j) for j in scorers if j.selector.needs.reads_attention and without_attention]
    once = [_Once(j.selector) for j in scorers if isinstance(j.selector, AcsLearned)]
    predicting = {selector.name: selector for selector in once}
    scorers = [replace(j, selector=predicting.get(j.selector.name, j.selector)) for j in scorers]
    notes, stated = _Notes(), False
    wanted = any(scorer.selector.needs.maps for scorer in scorers)
    for done, call in enumerate(calls(material.data, wanted, material.answers)):
        progress(done, len(material.data.pairs))
        if call.pair not in material.kept:
            continue
        stated = stated or any(c.stated is not None for c in call.candidates)
        for selector in once:
            selector.begin(call)
        for count in counts:
            part, several = call.first(count), material.objects == "several"
            seen = {whole: part if whole else part.first_boxes() for whole in (True, several)}
            overlapping = {whole: Overlapping.of(of.candidates) for whole, of in seen.items()}
            for scorer in scorers:
                whole = several or not scorer.selector.needs.end_with_first_box
                decision = seen[whole].decided(scorer, several, overlapping[whole])
                notes.note(scorer.selector.name, count, _answer(decision, scorer, seen[whole]))
                if count == main and isinstance(scorer.selector, AcsLearned):  # table 3 is about the paper's regressor
                    notes.predicted += [c.quality for c in decision.candidates]
                    notes.truth += material.data.iou[seen[whole].index].tolist()
            for scorer in ablated if count == main else ():
                whole = several or not scorer.selector.needs.end_with_first_box
                even = replace(seen[whole], record=seen[whole].record.evened())
                decision = even.decided(scorer, several, overlapping[whole])
                notes.note(scorer.selector.name + EVEN_ATTENTION, count, _answer(decision, scorer, even))
            if material.objects == "single":
                for method, answer in _bounds(part, material, seed).items():
                    notes.note(method, count, answer)
    progress(len(material.data.pairs), len(material.data.pairs))
    runs = tuple(
        Run(
            method,
            material.temperature,
            count,
            tuple(answers),
            kind_of(method),
            is_learned(method.removesuffix(EVEN_ATTENTION)),
        )
        for (method, count), answers in notes.answers.items()
        if stated or method != VerbalConfidence().name
    )
    told = Predicted(np.array(notes.predicted), np.array(notes.truth)) if notes.predicted else None
    return runs, told


def greedy_runs(material: RunInput, scorer: Scorer) -> tuple[Run, ...]:
    """Return the run of greedy decoding.

    For several objects per question, the run holds all boxes in the order written, and further runs apply non-maximum
    suppression at each IoU of ``NMS_IOUS``. There, earlier boxes win, since greedy decoding has no scores.
    """
    found: dict[str, list[Prediction]] = {}
    for call in calls(material.data, False, material.answers):
        if call.pair not in material.kept:
            continue
        if material.objects == "single":
            found.setdefault("greedy", []).append(answer_to(call, scorer, "single"))
            continue
        boxes = [c.box for c in sorted(call.candidates, key=lambda c: c.order)]
        why = "" if boxes else why_no_candidates(call.responses)
        found.setdefault("greedy", []).append(Prediction(tuple(boxes), reason=why))
        for iou in NMS_IOUS:
            found.setdefault(f"greedy + NMS {iou:g}", []).append(Prediction(suppressed(boxes, iou), reason=why))
    return tuple(Run(method, None, 1, tuple(answers), "baseline") for method, answers in found.items())


def answer_to(call: Call, scorer: Scorer, objects: str) -> Prediction:
    """Return the answer of ``scorer``; ``objects`` as in :class:`acs_core.evaluation.records.Group`."""
    seen = call.seen_by(scorer.selector, objects == "several")
    return _answer(seen.decided(scorer, objects == "several"), scorer, seen)


def suppressed(boxes: Sequence[Box], iou: float) -> tuple[Box, ...]:
    """Apply non-maximum suppression to ``boxes``, the best first: boxes with an IoU of ``iou`` or more with a kept box
    are removed."""
    agree = overlaps(boxes, iou)
    kept: list[int] = []
    for i in range(len(boxes)):
        if not agree[i, kept].any():
            kept.append(i)
    return tuple(boxes[i] for i in kept)


def entropy_profiles(data: Collection) -> tuple[EntropyProfile, ...]:
    """Return the mean entropy in nats of each layer by IoU group and coordinate, over all candidates (figures 4 and
    10). Empty groups are left out."""
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
    """Return the kind of a method, as in :class:`acs_core.evaluation.records.Run`."""
    if method in (ORACLE, RANDOM) or method.endswith(EVEN_ATTENTION):
        return "bound"
    return "baseline" if is_baseline(method) else "ours"


def _answer(decision: Decision, scorer: Scorer, call: Call) -> Prediction:
    found = decision.detections
    stated = scorer.kind_of(call.looked_again).is_probability
    ranks = () if stated or not found else _confidences(decision, scorer, call)
    return Prediction(
        boxes=tuple(d.box for d in found),
        scores=tuple(d.score for d in found) if stated else (),
        expected_iou=found[0].expected_iou if found else None,
        reason=decision.reason,
        confidences=ranks,
    )


def _confidences(decision: Decision, scorer: Scorer, call: Call) -> tuple[float, ...]:
    """Return the confidence of each published box, in [0, 1], comparable between calls; () if the selector has none."""
    selector = scorer.selector
    values: np.ndarray | None
    if isinstance(selector, TokenUncertainty | VerbalConfidence):
        values = decision.qualities  # absolute: they depend on no other candidate
    else:
        values = selector.confidences(call.candidates, call.record, call.image_size or (1, 1), decision.qualities)
    if values is None:
        return ()
    return tuple(float(np.clip(values[d.candidate], 0.0, 1.0)) for d in decision.detections)


def _bounds(call: Call, material: RunInput, seed: int) -> dict[str, Prediction]:
    """Return the answers of the bounds: the candidate with the highest true IoU, and a random one, drawn with ``seed``
    and the pair's index."""
    if not call.candidates:
        why = why_no_candidates(call.responses)
        return {ORACLE: Prediction(reason=why), RANDOM: Prediction(reason=why)}
    best = int(material.data.iou[call.index].argmax())
    drawn = int(np.random.default_rng([seed, call.pair]).integers(len(call.candidates)))
    return {
        ORACLE: Prediction((call.candidates[best].box,)),
        RANDOM: Prediction((call.candidates[drawn].box,)),
    }


def check_hidden_states(scorer: Scorer, data: Collection, answers: Sequence[Mapping[str, object]]) -> None:
    """Check that a collection holds the hidden states that the calibrations of ``scorer`` read.

    Args:
        scorer: the scorer.
        data: the collection.
        answers: its responses.

    Raises:
        DataError: it does not hold those of a question that got a box.
    """
    if not any(curve and curve.presence for curve in (scorer.calibration, scorer.second_look)):
        return
    asked = set(data.pair.tolist())
    if missing := asked - {answer["pair"] for answer in answers if hidden_of(answer) is not None}:
        raise DataError(
            f"the scores of {scorer.selector.name} need the hidden states at the end of the prompts, which the "
            f"collection does not hold for {len(missing)} of {len(asked)} questions, an earlier version of acs made "
            "it: evaluate with another --work folder, and without --collected"
        )


def _check_evidence(scorer: Scorer, data: Collection) -> None:
    step = data.manifest.get("step", "emitting")
    if scorer.selector.needs.step == "consuming" != step:
        raise DataError(
            f"{scorer.selector.name} looks at the consuming step, the collection holds the attention of the {step} "
            f"one: "
            "evaluate with --step consuming"
        )
    reads, holds = scorer.selector.needs.map_size, tuple(data.maps.shape[-2:])
    if scorer.selector.needs.maps and reads and len(data.iou) and reads != holds:
        raise DataError(
            f"the regressor of {scorer.selector.name} reads maps of {reads[0]} x {reads[1]} cells, the collection "
            f"holds "
            f"{holds[0]} x {holds[1]}: set --map-side as it was when the regressor's data was collected"
        )
