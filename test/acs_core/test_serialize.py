from __future__ import annotations

import json
from dataclasses import replace

import pytest

from acs_core.geometry import Box
from acs_core.serialize import result_from_dict, result_to_dict
from acs_core.types import Candidate, Detection, GroundingResult, Outcome, Response, ScoreKind


def result(**changes) -> GroundingResult:
    chosen = Candidate(Box(1, 2, 4, 5), "a", 0, 0, (1, 3, 5, 7), 0.5, 0.75, 0, Outcome.SELECTED, "")
    other = Candidate(Box(0, 0, 2.5, 2), "b", 1, 2, (2, 4, 6, 8), 0.25, 0.5, 1, Outcome.OUTRANKED, "worse")
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
    [{}, {"detections": (), "reason": "not there"}, {"candidates": (), "responses": ()}, {"revision": "abc"}],
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
        ({"score_kind": "none of them"}, "none of them"),
        ({"candidates": [{}]}, "KeyError"),
    ],
)
def test_what_is_no_result_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        result_from_dict(result_to_dict(result()) | changes)


def test_a_missing_field_is_named():
    data = result_to_dict(result())
    del data["phrase"]
    with pytest.raises(ValueError, match="phrase"):
        result_from_dict(data)
