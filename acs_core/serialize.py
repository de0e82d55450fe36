"""A grounding result as plain JSON values, the same for the command line, reports and logs; and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from acs_core.geometry import Box
from acs_core.types import Candidate, Detection, GroundingResult, Outcome, Response, ScoreKind

SCHEMA_VERSION = 1


def result_to_dict(result: GroundingResult) -> dict[str, Any]:
    """Everything in ``result``; boxes are ``[x1, y1, x2, y2]`` in pixels, times in milliseconds."""
    return {
        "schema_version": SCHEMA_VERSION,
        "phrase": result.phrase,
        "image_size": list(result.image_size),
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
            }
            for c in result.candidates
        ],
        "responses": [
            {"text": r.text, "num_boxes": r.num_boxes, "finished": r.finished, "problem": r.problem}
            for r in result.responses
        ],
        "window": _box(result.window) if result.window else None,
        "skipped": list(result.skipped),
        "timing_ms": {stage: round(ms, 3) for stage, ms in result.timing_ms.items()},
    }


def _box(box: Box) -> list[float]:
    return [round(v, 3) for v in box.as_tuple()]


def result_from_dict(data: Mapping[str, Any]) -> GroundingResult:
    """The result that :func:`result_to_dict` wrote, with its rounding; ``attention`` is not kept.

    Raises:
        ValueError: another schema version, or fields that are missing or wrong; names the problem.
    """
    if data.get("schema_version") != SCHEMA_VERSION:
        found = data.get("schema_version")
        raise ValueError(f'field "schema_version" is {found!r}, this version of acs reads {SCHEMA_VERSION}')
    try:
        width, height = data["image_size"]
        return GroundingResult(
            phrase=data["phrase"],
            image_size=(int(width), int(height)),
            detections=tuple(
                Detection(Box(*d["box"]), d["score"], d["candidate"], d["expected_iou"]) for d in data["detections"]
            ),
            candidates=tuple(_candidate(c) for c in data["candidates"]),
            responses=tuple(
                Response(r["text"], r["num_boxes"], r["finished"], r["problem"]) for r in data["responses"]
            ),
            selector=data["selector"],
            score_kind=ScoreKind(data["score_kind"]),
            model=data["model"],
            revision=data["revision"],
            seed=data["seed"],
            reason=data["reason"],
            timing_ms=dict(data["timing_ms"]),
            skipped=tuple(data["skipped"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"no grounding result: {type(error).__name__}: {error}") from error


def _candidate(data: Mapping[str, Any]) -> Candidate:
    x1, y1, x2, y2 = data["coordinate_tokens"]
    return Candidate(
        box=Box(*data["box"]),
        label=data["label"],
        response=data["response"],
        order=data["order"],
        coordinate_tokens=(x1, y1, x2, y2),
        quality=data["quality"],
        score=data["score"],
        cluster=data["cluster"],
        outcome=Outcome(data["outcome"]),
        reason=data["reason"],
    )
