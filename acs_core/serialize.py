"""A grounding result as plain JSON values, the same for the command line, reports and logs."""

from __future__ import annotations

from typing import Any

from acs_core.geometry import Box
from acs_core.types import GroundingResult

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
