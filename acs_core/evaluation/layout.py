"""Conversion of an evaluation to and from JSON values; each property of a run's predictions is one list, for
compactness."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from acs_core.artifacts.json_io import number
from acs_core.evaluation.fields import exactly, listed, numbers, objects, optional, text
from acs_core.evaluation.outcomes import check_answer
from acs_core.evaluation.records import EntropyProfile, Evaluation, Group, Prediction, Question, RegressorAccuracy, Run
from acs_core.geometry import Box
from acs_core.plain_text import shorten

SCHEMA_VERSION = 1
PIXEL_DIGITS, SCORE_DIGITS, MS_DIGITS = 2, 6, 3


def to_dict(evaluation: Evaluation) -> dict[str, Any]:
    """Return the evaluation as JSON values.

    Raises:
        ValueError: a prediction has the wrong number of scores, or a score is outside [0, 1].
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "title": evaluation.title,
        "facts": {str(key): str(value) for key, value in evaluation.facts.items()},
        "groups": [_group_to(group) for group in evaluation.groups],
        "regressions": [asdict(r) for r in evaluation.regressions],
        "entropy": [{**asdict(e), "by_layer": list(e.by_layer)} for e in evaluation.entropy],
        "critical_layers": list(evaluation.critical_layers),
    }


def from_dict(data: Mapping[str, Any]) -> Evaluation:
    """Return the evaluation that :func:`to_dict` converted.

    Raises:
        ValueError: a field is missing or wrong; the message names it.
    """
    facts = data.get("facts", {})
    if not isinstance(facts, dict):
        raise ValueError(f'field "facts" must be an object, got {shorten(facts)}')
    return Evaluation(
        text(data, "title"),
        tuple(_group_from(g, f"groups[{i}]: ") for i, g in enumerate(objects(data, "groups"))),
        {str(key): str(value) for key, value in facts.items()},
        tuple(
            _regression_from(r, f"regressions[{i}]: ") for i, r in enumerate(objects(data, "regressions", default=[]))
        ),
        tuple(_entropy_from(e, f"entropy[{i}]: ") for i, e in enumerate(objects(data, "entropy", default=[]))),
        tuple(int(v) for v in numbers(data.get("critical_layers", []), 'field "critical_layers"')),
    )


def _group_to(group: Group) -> dict[str, Any]:
    asked = group.questions
    return {
        "name": group.name,
        "objects": group.objects,
        "questions": {
            "key": [q.key for q in asked],
            "phrase": [q.phrase for q in asked],
            "category": [q.category for q in asked],
            "image": [q.image for q in asked],
            "size": [list(q.image_size) for q in asked],
            "truth": [_flat(q.truth) for q in asked],
        },
        "runs": [_run_to(run, f'group "{group.name}", {run.method}: ') for run in group.runs],
    }


def _run_to(run: Run, where: str) -> dict[str, Any]:
    for i, answer in enumerate(run.answers):
        check_answer(answer, f"{where}answer {i}")
    reasons = list(dict.fromkeys(answer.reason for answer in run.answers))
    place = {reason: i for i, reason in enumerate(reasons)}
    data: dict[str, Any] = {"method": run.method, "temperature": run.temperature, "samples": run.samples}
    data |= {"kind": run.kind, "learned": run.learned, "boxes": [_flat(a.boxes) for a in run.answers]}
    # Lists without any value are left out: most methods have no scores.
    if any(answer.scores for answer in run.answers):
        data["scores"] = [[round(s, SCORE_DIGITS) for s in a.scores] for a in run.answers]
    if any(answer.confidences for answer in run.answers):
        data["confidences"] = [[round(s, SCORE_DIGITS) for s in a.confidences] for a in run.answers]
    if any(answer.expected_iou is not None for answer in run.answers):
        data["expected_iou"] = [_rounded(a.expected_iou, SCORE_DIGITS) for a in run.answers]
    if any(answer.latency_ms is not None for answer in run.answers):
        data["latency_ms"] = [_rounded(a.latency_ms, MS_DIGITS) for a in run.answers]
    if any(reasons):
        data |= {"reasons": reasons, "reason": [place[a.reason] for a in run.answers]}
    return data


def _group_from(data: Mapping[str, Any], where: str) -> Group:
    asked = data.get("questions")
    if not isinstance(asked, dict):
        raise ValueError(f'{where}field "questions" must be an object, got {shorten(asked)}')
    keys = listed(asked, "key", where)
    texts = [listed(asked, name, where, len(keys)) for name in ("key", "phrase", "category", "image")]
    sizes, truths = (listed(asked, name, where, len(keys)) for name in ("size", "truth"))
    questions = []
    for i, (key, phrase, category, image, size, truth) in enumerate(zip(*texts, sizes, truths, strict=True)):
        here = f"{where}question {i}: "
        if not all(isinstance(text, str) for text in (key, phrase, category, image)):
            raise ValueError(f"{here}key, phrase, category and image must be strings")
        width, height = exactly(2, size, f'{here}"size"')
        questions.append(Question(key, phrase, category, image, (int(width), int(height)), _boxes(truth, here)))
    runs = tuple(_run_from(r, len(keys), f"{where}runs[{i}]: ") for i, r in enumerate(objects(data, "runs", where)))
    try:
        return Group(text(data, "name", where), text(data, "objects", where), tuple(questions), runs)
    except ValueError as error:
        raise ValueError(f"{where}{error}") from error


def _run_from(data: Mapping[str, Any], count: int, where: str) -> Run:
    temperature, learned = data.get("temperature"), data.get("learned", False)
    if not isinstance(learned, bool):
        raise ValueError(f'{where}field "learned" must be true or false, got {shorten(learned)}')
    scores, confidences = (listed(data, name, where, count, [[]] * count) for name in ("scores", "confidences"))
    ious, latencies = (listed(data, name, where, count, [None] * count) for name in ("expected_iou", "latency_ms"))
    reasons, reason = listed(data, "reasons", where, default=[""]), listed(data, "reason", where, count, [0] * count)
    answers = []
    for i, boxes in enumerate(listed(data, "boxes", where, count)):
        here = f"{where}answer {i}: "
        if not isinstance(reason[i], int) or not 0 <= reason[i] < len(reasons):
            raise ValueError(f'{here}"reason" must be the place of one of the {len(reasons)} reasons')
        answer = Prediction(
            _boxes(boxes, here),
            tuple(numbers(scores[i], f'{here}"scores"')),
            optional(ious[i], f'{here}"expected_iou"'),
            optional(latencies[i], f'{here}"latency_ms"'),
            str(reasons[reason[i]]),
            tuple(numbers(confidences[i], f'{here}"confidences"')),
        )
        check_answer(answer, here.removesuffix(": "))
        answers.append(answer)
    return Run(
        text(data, "method", where),
        optional(temperature, f'{where}"temperature"'),
        int(number(data, "samples", where)),
        tuple(answers),
        text(data, "kind", where),
        learned,
    )


def _regression_from(data: Mapping[str, Any], where: str) -> RegressorAccuracy:
    temperature, count, mae, pearson = (number(data, k, where) for k in ("temperature", "count", "mae", "pearson"))
    return RegressorAccuracy(temperature, int(count), mae, pearson, text(data, "group", where))


def _entropy_from(data: Mapping[str, Any], where: str) -> EntropyProfile:
    layers = tuple(numbers(data.get("by_layer"), f'{where}field "by_layer"'))
    count = int(number(data, "count", where))
    return EntropyProfile(text(data, "coordinate", where), text(data, "iou_group", where), count, layers)


def _flat(boxes: Iterable[Box]) -> list[float]:
    return [round(float(v), PIXEL_DIGITS) for box in boxes for v in box.as_tuple()]


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(float(value), digits)


def _boxes(values: Any, where: str) -> tuple[Box, ...]:
    flat = numbers(values, f"{where}boxes")
    if len(flat) % 4:
        raise ValueError(f"{where}boxes are four numbers each, got {len(flat)} numbers")
    return tuple(Box(*flat[i : i + 4]) for i in range(0, len(flat), 4))
