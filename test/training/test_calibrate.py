import numpy as np
import pytest

from acs_core.heads import Head, HeadFile
from acs_core.selection import AcsFree, make_selector
from training.calibrate import calibrate, calibration_error
from training.errors import DataError
from training.offline_choice import choose_offline


@pytest.fixture
def selector(identity, telling_head):
    return AcsFree(HeadFile(identity, "heads", ((Head(*telling_head),),) * 4))


def test_the_curve_rises_and_predicts_fresh_choices(collection, fresh_collection, selector, identity):
    curve = calibrate(selector, collection, identity, "test")
    assert curve.selector == "acs-free" and curve.num_samples == 60
    assert 0 < curve.y[0] <= curve.y[-1] < 1
    choices = choose_offline(selector, fresh_collection)
    stated = curve.apply(choices.confidence)
    assert calibration_error(stated, choices.iou >= 0.5, bins=5) < 0.2


def test_what_cannot_be_calibrated_is_said(collection, identity):
    class Loaded:
        name, family, num_layers, num_heads, revision, device = "m", "internvl", 3, 2, None, "cpu"

    with pytest.raises(DataError, match="no confidence"):
        calibrate(make_selector("first-valid", Loaded()), collection, identity, "")


@pytest.mark.parametrize(
    ("probability", "hit", "error"),
    [([0.5] * 4, [1, 0, 1, 0], 0.0), ([1.0] * 4, [0, 0, 0, 0], 1.0), ([0.8] * 10, [1] * 8 + [0] * 2, 0.0)],
)
def test_calibration_error(probability, hit, error):
    assert calibration_error(np.array(probability), np.array(hit), bins=1) == pytest.approx(error)
