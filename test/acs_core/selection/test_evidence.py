import math

import numpy as np
import pytest
from helpers.score_parts import one_split

from acs_core.attention import AttentionRecord
from acs_core.errors import NonFiniteError
from acs_core.generation.token_statistics import TokenStatistics
from acs_core.geometry import Box
from acs_core.selection.evidence import FEATURES, Evidence, estimate, evidence_rows, feature_names, log_odds
from acs_core.types import Candidate

HERE, THERE = Box(0, 0, 20, 20), Box(60, 60, 80, 80)


def evidence(boxes=(HERE, HERE, THERE), drawn=5, tokens=True, maps=True, confidence=None, probe=True):
    """Three candidates of five responses, in an image of 100 x 100 pixels; all attention is in the first cell of 5 x
    5, which is the place of HERE."""
    candidates = tuple(Candidate(box, "key", r, 0, (1, 2, 3, 4)) for r, box in enumerate(boxes))
    seen = np.zeros((len(boxes), 4, 2, 1, 5, 5), np.float32)
    seen[..., 0, 0] = 1.0
    count = len(boxes)
    told = TokenStatistics(
        np.tile(np.arange(1.0, count + 1)[:, None], 4),
        -np.arange(1.0, count + 1),
        np.full(count, math.log(0.25)),
        np.zeros(count),
        np.ones(count, int),
    )
    record = AttentionRecord(
        np.zeros((count, 4, 2, 1)), seen if maps else None, (5, 5), told if tokens else None, drawn
    )
    stated = np.full(count, 0.5) if confidence is None else confidence
    return Evidence(candidates, record, (100, 100), stated, 1.5 if probe else None)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("confidence", [0.5, 0.5, 0.5]),
        ("share without box", [0.4, 0.4, 0.4]),
        ("mean IoU", [0.25, 0.25, 0.0]),  # one of four others agrees
        ("share above 0.5", [0.25, 0.25, 0.0]),
        ("responses", [5, 5, 5]),
        ("log area", [math.log(0.04)] * 3),
        ("log-odds of a box", [math.log(0.25 / 0.75)] * 3),
        ("box log-probability", [-1, -2, -3]),
        ("token entropy", [1, 2, 3]),
        ("attention in box", [1, 1, 0]),
        ("presence", [1.5, 1.5, 1.5]),
    ],
)
def test_features(name, values):
    assert evidence_rows([name], evidence())[:, 0] == pytest.approx(values)


def test_every_feature_is_tested_above():
    (mark,) = [m for m in test_features.pytestmark if m.name == "parametrize"]
    assert {name for name, _ in mark.args[1]} == set(FEATURES)


@pytest.mark.parametrize(("maps", "missing"), [(True, set()), (False, {"attention in box"})])
def test_features_without_maps(maps, missing):
    assert set(FEATURES) - set(feature_names(maps, probe=True)) == missing


def test_features_without_a_presence_probe():
    assert set(FEATURES) - set(feature_names(maps=True)) == {"presence"}


@pytest.mark.parametrize(
    ("name", "less", "said"),
    [
        ("token entropy", {"tokens": False}, "certainty about its tokens"),
        ("attention in box", {"maps": False}, "attention maps"),
        ("presence", {"probe": False}, "presence probe, which its calibration does not hold"),
        ("colour", {}, "unknown feature 'colour'"),
    ],
)
def test_what_was_not_captured_is_said(name, less, said):
    with pytest.raises(ValueError, match=said):
        evidence_rows([name], evidence(**less))


@pytest.mark.parametrize(
    ("logprob", "odds"), [(0.0, 12.0), (-100.0, -12.0), (math.log(0.5), 0.0), (math.log(0.9), math.log(9)), (1e-9, 12)]
)
def test_log_odds_are_bounded(logprob, odds):
    assert log_odds(np.array([logprob])) == pytest.approx([odds])


def test_candidates_that_are_not_considered_have_no_estimate():
    model = one_split("mean IoU", ["confidence", "mean IoU"], threshold=0.1)
    found = estimate(model, evidence(confidence=np.array([0.5, np.nan, 0.5])))
    assert found[[0, 2]].tolist() == [0.8, 0.1] and np.isnan(found[1])


def test_broken_evidence_gives_no_score():
    broken = evidence()
    broken.record.tokens.entropy[0] = np.nan
    with pytest.raises(NonFiniteError, match="evidence for the score"):
        estimate(one_split("token entropy", ["token entropy"]), broken)
