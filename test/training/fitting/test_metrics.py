import math

import numpy as np
import pytest

from training.fitting.metrics import agreement, entropy_of_iou


def test_agreement_of_what_is_known():
    rng = np.random.default_rng(0)
    truth = rng.random(2000)
    told = agreement(truth + rng.normal(0, 0.1, 2000), truth)
    assert told.mse == pytest.approx(0.01, rel=0.1) and told.mae == pytest.approx(0.08, rel=0.1)
    assert told.pearson == pytest.approx(1 / math.sqrt(1 + 0.01 * 12), rel=0.02)
    # appendix B: H(Y) of the even spread is 0, H(Y|f) = ln(2 pi e 0.01) / 2
    assert told.information == pytest.approx(-0.5 * math.log(2 * math.pi * math.e * 0.01), abs=0.1)
    assert told.information_knn == pytest.approx(told.information, abs=0.25)


def test_nothing_learnt_is_no_information():
    rng = np.random.default_rng(1)
    truth = rng.random(2000)
    told = agreement(np.full(2000, 0.5), truth)
    assert told.pearson == 0 and told.information < 0.1 and told.information_knn == 0
    assert agreement(rng.random(2000), truth).information_knn < 0.1


@pytest.mark.parametrize(("values", "entropy"), [(np.linspace(0, 1, 5001), 0.0), (np.zeros(100), -math.log(50))])
def test_entropy_of_iou(values, entropy):
    assert entropy_of_iou(values) == pytest.approx(entropy, abs=0.01)


def test_no_candidates_are_refused():
    with pytest.raises(ValueError, match="one is needed"):
        agreement(np.zeros(0), np.zeros(0))
