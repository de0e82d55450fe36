"""Conversion of grounding results to and from JSON values, for the command line, reports and logs."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

from acs_core.arguments import MAX_SEED, coordinate, described, flag, real, whole
from acs_core.geometry import Box
from acs_core.types import Candidate, Detection, GroundingResult, Outcome, Response, ScoreKind

SCHEMA_VERSION = 1


def result_to_dict(result: GroundingResult) -> dict[str, Any]:
    """Return ``result`` as JSON values, without ``attention``; boxes are ``[x1, y1, x2, y2]`` in pixels."""
    return {
        "schema_version": SCHEMA_VERSION,
        "phrase": result.phrase,
        "image_size": list(result.image_size),
        "input_size": None if result.input_size is None else list(result.input_size),
        "image_tokens": result.image_tokens,
        "model": result.model,
        "revision": result.revision,
        "selector": result.selector,
        "score_kind": result.score_kind.value,
        "seed": result.seed,
        "reason": result.reason,
        "detections": [
            {
                "box": _box(d.box),
                "score": round(d.score, 6),
                "expected_iou": None if d.expected_iou is None else round(d.expected_iou, 6),
                "candidate": d.candidate,
            }
            for d in result.detections
        ],
        "candidates": [
            {
                "box": _box(c.box),
                "label": c.label,
                "response": c.response,
                "order": c.order,
                "coordinate_tokens": list(c.coordinate_tokens),
                "quality": round(c.quality, 6),
                "score": round(c.score, 6),
                "cluster": c.cluster,
                "outcome": c.outcome.value,
                "reason": c.reason,
                "look": c.look,
                "in_window": _box(c.in_window) if c.in_window else None,
                "stated": c.stated,
            }
            for c in result.candidates
        ],
        "responses": [
            {"text": r.text, "num_boxes": r.num_boxes, "finished": r.finished, "problem": r.problem}
            for r in result.responses
        ],
        "window": _box(result.window) if result.window else None,
        "region": _box(result.region) if result.region else None,
        "skipped": list(result.skipped),
        "timing_ms": {stage: round(ms, 3) for stage, ms in result.timing_ms.items()},
    }


def _box(box: Box) -> list[float]:
    return [round(v, 3) for v in box.as_tuple()]


def result_from_dict(data: Mapping[str, Any]) -> GroundingResult:
    """Return the result that :func:`result_to_dict` converted, with its rounding and without ``attention``.

    Raises:
        ValueError: the schema version differs, or a field is missing or wrong; the message names it.
    """
    found = data.get("schema_version")
    if found != SCHEMA_VERSION or isinstance(found, bool):
        raise ValueError(f'field "schema_version" is {described(found)}, this version of acs reads {SCHEMA_VERSION}')
    try:
        width, height = (whole("image_size", side) for side in data["image_size"])
        return GroundingResult(
            phrase=data["phrase"],
            image_size=(width, height),
            detections=tuple(_detection(d) for d in data["detections"]),
            candidates=tuple(_candidate(c) for c in data["candidates"]),
            responses=tuple(
                Response(r["text"], whole("num_boxes", r["num_boxes"]), flag("finished", r["finished"]), r["problem"])
                for r in data["responses"]
            ),
            selector=data["selector"],
            score_kind=ScoreKind(data["score_kind"]),
            model=data["model"],
            revision=data["revision"],
            seed=whole("seed", data["seed"], 0, MAX_SEED),
            reason=data["reason"],
            timing_ms={stage: _number(f"timing_ms.{stage}", ms) for stage, ms in data["timing_ms"].items()},
            skipped=tuple(data["skipped"]),
            window=_optional_box(data.get("window")),
            input_size=_optional_size(data.get("input_size")),
            image_tokens=whole("image_tokens", data.get("image_tokens", 0)),
            region=_optional_box(data.get("region")),
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"no grounding result: {type(error).__name__}: {error}") from error


def _detection(data: Mapping[str, Any]) -> Detection:
    expected = data["expected_iou"]
    return Detection(
        box=_box_from(data["box"]),
        score=real("score", data["score"], 0, 1),
        candidate=whole("candidate", data["candidate"]),
        expected_iou=None if expected is None else real("expected_iou", expected, 0, 1),
    )


def _candidate(data: Mapping[str, Any]) -> Candidate:
    x1, y1, x2, y2 = (whole("coordinate_tokens", token) for token in data["coordinate_tokens"])
    return Candidate(
        box=_box_from(data["box"]),
        label=data["label"],
        response=whole("response", data["response"]),
        order=whole("order", data["order"]),
        coordinate_tokens=(x1, y1, x2, y2),
        quality=_number("quality", data["quality"]),
        score=real("score", data["score"], 0, 1),
        cluster=whole("cluster", data["cluster"]),
        outcome=Outcome(data["outcome"]),
        reason=data["reason"],
        look=whole("look", data.get("look", 0)),
        in_window=_optional_box(data.get("in_window")),
        stated=None if data.get("stated") is None else real("stated", data["stated"], 0, 1),
    )


def _optional_size(sides: Any) -> tuple[int, int] | None:
    if sides is None:
        return None
    width, height = (whole("input_size", side) for side in sides)
    return width, height


def _optional_box(values: Any) -> Box | None:
    return None if values is None else _box_from(values)


def _box_from(values: Any) -> Box:
    if not isinstance(values, (list, tuple)) or len(values) != 4:
        raise ValueError(f"a box must be four numbers, got {described(values)}")
    numbers = [coordinate("a coordinate of a box", value) for value in values]
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"a box must be four finite numbers, got {described(values)}")
    return Box(*numbers)


def _number(name: str, value: Any) -> float:
    return real(name, value, -sys.float_info.max, sys.float_info.max)
