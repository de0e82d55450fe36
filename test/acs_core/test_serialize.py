from __future__ import annotations

import json
from dataclasses import replace

import pytest

from acs_core.geometry import Box
from acs_core.serialize import result_from_dict, result_to_dict
from acs_core.types import Candidate, Detection, GroundingResult, Outcome, Response, ScoreKind


def result(**changes) -> GroundingResult:
    chosen = Candidate(Box(1, 2, 4, 5), "a", 0, 0, (1, 3, 5, 7), 0.5, 0.75, 0, Outcome.SELECTED, "")
    other = Candidate(Box(0, 0, 2.5, 2), "b", 1, 2, (2, 4, 6, 8), 0.25, 0.5, 1, Outcome.OUTRANKED, "worse", stated=0.9)
    base = GroundingResult(
        phrase="key",
        image_size=(8, 6),
        detections=(Detection(chosen.box, 0.75, 0, 0.6), Detection(other.box, 0.5, 1)),
        candidates=(chosen, other),
        responses=(Response("[...]", 1, True), Response("…", 0, False, "no box")),
        selector="acs-free",
        score_kind=ScoreKind.CALIBRATED,
        model="m",
        revision=None,
        seed=7,
        timing_ms={"total": 3.5},
        skipped=("a sample",),
    )
    return replace(base, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"detections": (), "reason": "not there"},
        {"candidates": (), "responses": ()},
        {"revision": "abc"},
        {"input_size": (28, 56), "image_tokens": 2},
    ],
)
def test_a_result_comes_back(changes):
    given = result(**changes)
    assert result_from_dict(json.loads(json.dumps(result_to_dict(given)))) == given


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"schema_version": None}, "schema_version"),
        ({"image_size": 5}, "no grounding result"),
        ({"input_size": [1.5, 2]}, "input_size must be a whole number"),
        ({"image_tokens": -1}, "image_tokens must be a whole number"),
        ({"score_kind": "none of them"}, "none of them"),
        ({"candidates": [{}]}, "KeyError"),
        ({"window": [1, 2, 3, 10**400]}, "four finite numbers"),
        ({"window": [1, 2, 3, -(10**5000)]}, "four finite numbers"),
        ({"window": [1, 2, 3, float("inf")]}, "four finite numbers"),
        ({"window": (1, 2, 3, True)}, "a coordinate of a box must be a number, got True"),
        ({"window": [1, 2, 3]}, "four numbers"),
        ({"image_size": [float("inf"), 6]}, "image_size must be a whole number"),
        ({"image_size": [10**400, 6]}, "image_size must be a whole number"),
        ({"seed": 10**400}, "seed must be a whole number"),
        ({"timing_ms": {"total": 10**400}}, "timing_ms.total must be a number"),
        ({"timing_ms": [1]}, "no grounding result"),
        ({"candidates": [None]}, "no grounding result"),
        ({"detections": ["a"]}, "no grounding result"),
    ],
)
def test_what_is_no_result_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        result_from_dict(result_to_dict(result()) | changes)


@pytest.mark.parametrize("field", ["score", "quality", "cluster", "response", "order", "look"])
@pytest.mark.parametrize("value", [10**400, "many", None, float("nan")])
def test_a_number_that_is_none_is_refused(field, value):
    data = result_to_dict(result())
    data["candidates"][0][field] = value
    with pytest.raises(ValueError, match=f"{field} must be"):
        result_from_dict(data)


@pytest.mark.parametrize("value", [-0.01, 1.01, 1e300])
@pytest.mark.parametrize(
    ("part", "field"), [("candidates", "score"), ("detections", "score"), ("detections", "expected_iou")]
)
def test_a_probability_outside_0_to_1_is_refused(part, field, value):
    data = result_to_dict(result())
    data[part][0][field] = value
    with pytest.raises(ValueError, match=f"{field} must be a number from 0 to 1"):
        result_from_dict(data)


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_box_may_be_a_list_or_a_tuple(kind):
    data = result_to_dict(result(window=Box(1, 2, 3, 4)))
    assert result_from_dict(data | {"window": kind(data["window"])}) == result(window=Box(1, 2, 3, 4))


def test_a_missing_field_is_named():
    data = result_to_dict(result())
    del data["phrase"]
    with pytest.raises(ValueError, match="phrase"):
        result_from_dict(data)
