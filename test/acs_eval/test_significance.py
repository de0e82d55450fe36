import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from acs_eval.bootstrap import Resampling
from acs_eval.significance import holm, mcnemar, pair


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
