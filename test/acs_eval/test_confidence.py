import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from acs_eval.confidence import calibration, risk_coverage


def test_calibration_by_hand():
    found = calibration(np.array([0.95, 0.95, 0.15, 0.15]), np.array([1, 0, 0, 0], bool))
    assert found.error == pytest.approx(0.5 * 0.45 + 0.5 * 0.15)
    assert [(b.count, b.stated, b.right) for b in found.bins] == [
        (2, pytest.approx(0.15), 0),
        (2, pytest.approx(0.95), 0.5),
    ]


@given(st.integers(0, 2**32 - 1), st.integers(2, 200))
def test_bins_and_brier_are_those_of_sklearn(seed, count):
    rng = np.random.default_rng(seed)
    score, hit = rng.random(count), rng.random(count) < 0.5
    found = calibration(score, hit)
    right, stated = calibration_curve(hit, score, n_bins=10)
    assert [b.right for b in found.bins] == pytest.approx(right) and [b.stated for b in found.bins] == pytest.approx(
        stated
    )
    assert found.brier == pytest.approx(brier_score_loss(hit, score, pos_label=True))
    assert 0 <= found.error <= 1


@pytest.mark.parametrize("score", [0.0, 1.0, 0.3])
def test_the_ends_of_the_scale_have_a_bin(score):
    assert calibration(np.array([score]), np.array([True])).bins[0].count == 1


def test_boxes_without_a_score_are_left_out():
    assert calibration(np.array([np.nan]), np.array([True])) is None
    assert calibration(np.array([np.nan, 1.0]), np.array([False, True])).error == 0


def test_risk_coverage_by_hand():
    right, every = np.array([1, 1, 0, 1], bool), np.ones(4, bool)
    curve = risk_coverage(np.array([0.9, 0.8, 0.7, 0.6]), right, every)
    assert curve.coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert curve.accuracy.tolist() == pytest.approx([1, 1, 2 / 3, 3 / 4])
    assert curve.area == pytest.approx((0 + 0 + 1 / 3 + 1 / 4) / 4)
    assert [curve.accuracy_at(c) for c in (0.25, 0.3, 0.5, 1.0)] == pytest.approx([1, 1, 1, 0.75])


def test_unanswered_questions_come_last_as_wrong():
    curve = risk_coverage(np.array([0.9, np.nan]), np.array([True, False]), np.array([True, False]))
    assert curve.coverage.tolist() == [0.5, 1] and curve.accuracy.tolist() == [1, 0.5]


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_the_order_within_equal_scores_does_not_matter(seed, count):
    rng = np.random.default_rng(seed)
    score, right, answered = rng.integers(0, 4, count) / 4, rng.random(count) < 0.5, rng.random(count) < 0.9
    answered[0] = True
    order = rng.permutation(count)
    there, back = (risk_coverage(score[o], right[o] & answered[o], answered[o]) for o in (np.arange(count), order))
    assert there.accuracy.tolist() == back.accuracy.tolist() and there.area == pytest.approx(back.area)
    assert there.accuracy[-1] == pytest.approx((right & answered).mean()) and there.coverage[-1] == 1


def test_the_area_of_a_perfect_order_is_the_least():
    rng = np.random.default_rng(0)
    right, every = rng.random(200) < 0.6, np.ones(200, bool)
    perfect, blind, reverse = (
        risk_coverage(s, right, every).area for s in (right * 1.0, np.full(200, 0.5), 1.0 - right)
    )
    assert perfect < blind < reverse
    assert blind == pytest.approx(1 - right.mean())


@pytest.mark.parametrize(("score", "answered"), [([np.nan], [True]), ([0.5], [False])])
def test_no_curve_without_scores_or_answers(score, answered):
    assert risk_coverage(np.array(score), np.array([True]), np.array(answered)) is None
