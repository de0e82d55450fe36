from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from acs_core.artifacts.calibration import Calibration, CalibrationImages
from acs_core.artifacts.heads import Head, HeadFile
from acs_core.selection.registry import AcsFree, make_selector
from training.collection.offline_selection import calls, choose_offline
from training.errors import DataError
from training.fitting.calibrate import TILT, calibrate, calibration_error, rising_curve


@pytest.fixture
def selector(identity, telling_head):
    return AcsFree(HeadFile(identity, "heads", ((Head(*telling_head),),) * 4))


def test_the_curves_rise_and_predict_fresh_choices(collection, fresh_collection, selector, identity):
    curve, told = calibrate(selector, collection, identity, "test")
    assert curve.selector == "acs-free" and curve.num_samples == 60
    assert 0 < curve.y[0] <= curve.y[-1] < 1
    choices = choose_offline(selector, fresh_collection)
    stated = curve.apply(choices.confidence)
    assert calibration_error(stated, choices.iou >= 0.5) < 0.2
    expected = curve.expected_iou(choices.confidence)
    assert np.abs(expected - choices.iou).mean() < np.abs(choices.iou.mean() - choices.iou).mean()
    assert told.expected_iou_error < 0.2 and len(told.stated) == 60 and told.unanswered == 0


def test_reliability_is_told_by_images_that_the_curve_did_not_see(collection, selector, identity):
    _, told = calibrate(selector, collection, identity, "")
    choices = choose_offline(selector, collection)
    curve, _ = calibrate(selector, collection, identity, "")
    assert (told.stated != curve.apply(choices.confidence)).any()
    assert told.error == pytest.approx(calibration_error(told.stated, choices.iou >= 0.5))


def test_the_curve_keeps_the_order_of_the_confidences(collection, selector, identity):
    curve, _ = calibrate(selector, collection, identity, "test")
    assert len(curve.x) > 2 and (np.diff(curve.y) > 0).all() and (np.diff(curve.iou_y) > 0).all()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=60))
def test_a_curve_rises_and_its_mean_is_the_share_of_right_boxes(points):
    x, y = (np.array(values, float) for values in zip(*points, strict=True))
    knots, level = rising_curve(x, y, 0.0, 1.0)
    assert (np.diff(knots) > 0).all() and (np.diff(level) > 0).all()
    assert np.interp(x, knots, level).mean() == pytest.approx(y.mean(), abs=TILT)
    exact = IsotonicRegression(y_min=0, y_max=1).fit(x, y).predict(x)
    assert np.abs(np.interp(x, knots, level) - exact).max() <= TILT + 1e-9


def test_answers_with_a_second_look_have_a_curve_of_their_own(collection, selector, identity):
    again = [replace(call, looked_again=True) for call in calls(collection, False) if call.pair < 55]
    curve, told = calibrate(selector, collection, identity, "test", looked_again=again)
    assert curve.second_look and curve.num_samples == len(told.hit) == 55
    assert not calibrate(selector, collection, identity, "test")[0].second_look
    for few in ([], again[:49]):
        with pytest.raises(DataError, match=f"{len(few)} answers with a second look are too few"):
            calibrate(selector, collection, identity, "test", looked_again=few)


@pytest.mark.parametrize(
    ("pictures", "known"), [(None, ()), (["0" * 16] * 59 + ["f" * 16], ("0" * 16, "f" * 16)), ([""] * 60, ())]
)
def test_the_curve_names_the_images_that_it_was_fitted_on(collection, selector, identity, tmp_path, pictures, known):
    manifest = collection.manifest | ({"pictures": pictures} if pictures else {})
    curve, _ = calibrate(selector, replace(collection, manifest=manifest), identity, "test")
    assert curve.images == CalibrationImages("made-up 0", tuple(range(60)), known)
    curve.save(tmp_path / "c.json")
    assert Calibration.load(tmp_path / "c.json") == curve


def test_what_cannot_be_calibrated_is_said(collection, identity):
    class Loaded:
        name, family, num_layers, num_heads, revision, device = "m", "internvl", 3, 2, None, "cpu"

    with pytest.raises(DataError, match="no confidence"):
        calibrate(make_selector("first-valid", Loaded()), collection, identity, "")


@pytest.mark.parametrize(
    ("probability", "hit", "error"),
    [
        ([0.5] * 4, [1, 0, 1, 0], 0.0),
        ([1.0] * 4, [0, 0, 0, 0], 1.0),
        ([0.8] * 10, [1] * 8 + [0] * 2, 0.0),
        ([0.91] * 9 + [0.05], [1] * 10, 0.9 * 0.09 + 0.1 * 0.95),  # bins of equal width, weighted by their answers
        ([], [], 0.0),
    ],
)
def test_calibration_error(probability, hit, error):
    assert calibration_error(np.array(probability), np.array(hit)) == pytest.approx(error)
