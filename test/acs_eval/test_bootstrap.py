import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from acs_eval.bootstrap import Resampling

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
