import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from acs_core.evaluation.statistics import Resampling, auroc, calibration, holm, mcnemar, pair, risk_coverage

ONE_EACH = np.arange(400)


def mean(values, image=None, **more):
    values = np.asarray(values, float)
    image = np.arange(values.shape[-1]) if image is None else image
    return Resampling(image, **more).ratio(values, np.ones(values.shape[-1]))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
@settings(max_examples=40)
def test_the_interval_contains_the_mean(values):
    found = mean(values, draws=300).estimates()[0]
    assert found.value == pytest.approx(np.mean(values))
    assert found.low - 1e-9 <= found.value <= found.high + 1e-9
    assert min(values) - 1e-9 <= found.low and found.high <= max(values) + 1e-9


def test_the_interval_is_that_of_the_normal_distribution_where_it_holds():
    right = np.arange(400) < 240
    found = mean(right, draws=4000).estimates()[0]
    half = norm.ppf(0.975) * math.sqrt(0.6 * 0.4 / 400)
    assert (found.low, found.high) == pytest.approx((0.6 - half, 0.6 + half), abs=0.005)


def test_questions_about_one_picture_do_not_count_as_independent():
    right = np.repeat(np.arange(100) < 60, 4)
    alone, together = (mean(right, image, draws=2000).estimates()[0] for image in (ONE_EACH, np.arange(400) // 4))
    assert together.value == alone.value
    assert together.high - together.low == pytest.approx(2 * (alone.high - alone.low), rel=0.1)


def test_the_same_seed_draws_the_same_and_the_order_of_runs_does_not_matter():
    values = np.random.default_rng(0).random((2, 50))
    first, again, other = mean(values), mean(values), mean(values, seed=1)
    assert np.array_equal(first.draws, again.draws) and not np.array_equal(first.draws, other.draws)
    assert np.allclose(mean(values[::-1]).draws, first.draws[:, ::-1])


def test_a_ratio_is_one_of_sums():
    found = Resampling(np.array([0, 1])).ratio(np.array([1.0, 2.0]), np.array([4.0, 2.0])).estimates()[0]
    assert found.value == 0.5
    assert {found.low, found.high} == {0.25, 1.0}


def test_paired_differences_know_that_the_questions_are_the_same():
    rng = np.random.default_rng(0)
    base = rng.random(300)
    difference = mean(base + 0.05) - mean(base)
    found = difference.estimates()[0]
    assert (found.low, found.high) == pytest.approx((0.05, 0.05)) and difference.p_values()[0] < 0.002
    noise = mean(rng.random(300)) - mean(rng.random(300))
    assert noise.p_values()[0] > 0.01
    assert (mean(base) - mean(base)).p_values()[0] == 1


def test_gain_relative_to_another_run():
    assert mean([1, 1, 1, 0]).relative_to(mean([1, 1, 0, 0])).value[0] == pytest.approx(0.5)
    nothing = mean([1.0]).relative_to(mean([0.0])).estimates()[0]
    assert math.isnan(nothing.value) and math.isnan(nothing.low)


def test_nothing_to_resample():
    found = Resampling(np.array([], int)).ratio(np.zeros((1, 0)), np.zeros((1, 0))).estimates()[0]
    assert math.isnan(found.value)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_binomial_test(won, lost):
    expected = binomtest(won, won + lost).pvalue if won + lost else 1.0
    assert mcnemar(won, lost) == pytest.approx(expected, abs=1e-12)
    assert mcnemar(won, lost) == mcnemar(lost, won)


def test_counts_below_zero_are_refused():
    with pytest.raises(ValueError, match="below 0"):
        mcnemar(-1, 2)


@pytest.mark.parametrize(
    ("given_values", "adjusted"),
    [
        ([], []),
        ([0.02], [0.02]),
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),  # worked by hand: 3 x 0.01, 2 x 0.03, then not below that
        ([0.9, 0.6], [1.0, 1.0]),
    ],
)
def test_holm(given_values, adjusted):
    assert holm(given_values) == pytest.approx(adjusted)


def test_a_pair_counts_what_changed():
    right, other = np.array([1, 1, 1, 0, 0], bool), np.array([1, 0, 0, 1, 0], bool)
    found = pair(right, right * 0.8, other, other * 0.8, Resampling(np.arange(5)))
    assert (found.won, found.lost) == (2, 1)
    assert found.accuracy.value == pytest.approx(0.2) and found.miou.value == pytest.approx(0.16)
    assert found.mcnemar == 1.0 and found.accuracy_p > 0.3
    assert found.accuracy.low < 0.2 < found.accuracy.high


def test_a_pair_compares_how_often_boxes_lie_on_the_object():
    wrong = np.zeros(5, bool)
    iou, other = np.array([0.3, 0.3, 0.11, 0.1, 0]), np.array([0.3, 0, 0, 0, 0])
    found = pair(wrong, iou, wrong, other, Resampling(np.arange(5)))
    assert found.on_object.value == pytest.approx(0.4) and found.on_object.low < 0.4 < found.on_object.high
    assert found.accuracy.value == 0.0


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


@pytest.mark.parametrize(
    ("score", "right", "area"),
    [
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], 1.0),
        ([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1], 0.0),
        ([0.5, 0.5, 0.5], [0, 1, 1], 0.5),
        ([0.1, 0.5, 0.5, 0.9], [0, 0, 1, 1], 0.875),  # of four pairs three are in order, one is equal
        ([0.1, 0.2], [1, 1], None),
        ([], [], None),
    ],
)
def test_auroc(score, right, area):
    assert auroc(np.array(score), np.array(right)) == (None if area is None else pytest.approx(area))
