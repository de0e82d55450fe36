import json
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acs_core.artifacts.calibration import Calibration, WorkingPoint
from acs_core.artifacts.identity import ModelIdentity
from acs_core.artifacts.presence import PresenceProbe
from acs_core.errors import CalibrationError


@dataclass
class CalibratedModel:
    name: str = "tiny"
    family: str = "internvl"
    revision: str | None = None
    num_layers: int = 4
    num_heads: int = 8


IDENTITY = ModelIdentity("tiny", "internvl", 4, 8)
CURVE = Calibration(IDENTITY, "acs-free", "attention_concentration", (0.1, 0.5, 0.9), (0.0, 0.2, 0.8), 50, "by a test")


@pytest.mark.parametrize(
    ("confidence", "probability"), [(-1, 0.0), (0.1, 0.0), (0.3, 0.1), (0.5, 0.2), (0.7, 0.5), (0.9, 0.8), (5, 0.8)]
)
def test_interpolates_and_is_flat_outside(confidence, probability):
    assert CURVE.apply(np.array([confidence])) == pytest.approx([probability])


def test_one_knot_is_a_constant():
    assert replace(CURVE, x=(0.5,), y=(0.3,)).apply(np.array([0.0, 0.5, 1.0])).tolist() == [0.3, 0.3, 0.3]


def test_nothing_in_nothing_out():
    assert CURVE.apply(np.zeros(0)).shape == (0,)


curves = st.lists(
    st.tuples(st.integers(-1000, 1000), st.floats(0, 1)), min_size=1, max_size=20, unique_by=lambda k: k[0]
)


@given(curves, st.lists(st.floats(-20, 20), min_size=2))
def test_applied_values_are_monotone_and_in_range(knots, confidences):
    x = tuple(sorted(k[0] / 100 for k in knots))
    y = tuple(sorted(k[1] for k in knots))
    values = replace(CURVE, x=x, y=y).apply(np.sort(confidences))
    assert (np.diff(values) >= -1e-12).all()
    assert (values >= 0).all() and (values <= 1).all()


def test_round_trip(tmp_path):
    CURVE.save(tmp_path / "c.json")
    assert Calibration.load(tmp_path / "c.json") == CURVE


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"x": [0.1, 0.1], "y": [0, 1]}, '"x" must be strictly increasing'),
        ({"x": [0.1, 0.2], "y": [0.5, 0.4]}, '"y" must never decrease'),
        ({"x": [0.1, 0.2], "y": [0.5, 1.4]}, r'"y" must lie in \[0, 1\]'),
        ({"x": [0.1], "y": []}, "equal length"),
        ({"x": [], "y": []}, "equal length"),
        ({"x": "no", "y": [1]}, '"x" must be a list'),
        ({"x": [True], "y": [1]}, '"x" must hold numbers'),
        ({"x": [10**400], "y": [1]}, '"x" must hold numbers'),
        ({"x": list(range(20000))}, '"x" must be a list of at most'),
        ({"selector": 3}, '"selector" must be a string'),
        ({"num_samples": -1}, '"num_samples"'),
        ({"second_look": "yes"}, '"second_look" must be true or false'),
        ({"images": [1]}, '"images" must hold a text "data"'),
        ({"images": {"data": "a", "ids": [-1], "pictures": []}}, '"images": "ids" must hold whole numbers'),
        ({"images": {"data": "a", "ids": [1], "pictures": ["../x"]}}, '"pictures" must hold texts of 16'),
        ({"num_layers": "4"}, '"num_layers"'),
        ({"schema_version": 99}, '"schema_version" is 99'),
        ({"schema_version": True}, '"schema_version" is True'),
    ],
)
def test_wrong_fields_are_named(tmp_path, change, says):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(CURVE.to_dict() | change))
    with pytest.raises(CalibrationError, match=says):
        Calibration.load(path)


@pytest.mark.parametrize(
    ("model", "selector", "feature", "says"),
    [
        (CalibratedModel(num_layers=5), "acs-free", "attention_concentration", "4 layers x 8 heads"),
        (CalibratedModel(family="qwen2_5_vl"), "acs-free", "attention_concentration", "family internvl"),
        (CalibratedModel(), "acs-learned", "attention_concentration", "selector acs-free, not acs-learned"),
        (CalibratedModel(), "acs-free", "predicted_iou", "attention_concentration"),
    ],
)
def test_made_for_something_else(model, selector, feature, says):
    with pytest.raises(CalibrationError, match=says):
        CURVE.check(model, selector, feature)


def test_made_for_this():
    assert CURVE.check(CalibratedModel(), "acs-free", "attention_concentration") is None


@pytest.mark.parametrize(
    ("made", "wanted", "says"),
    [(False, True, "of one look, not of a second"), (True, False, "second look, not of one")],
)
def test_made_for_another_number_of_looks(tmp_path, made, wanted, says):
    replace(CURVE, second_look=made).save(tmp_path / "c.json")
    curve = Calibration.load(tmp_path / "c.json")
    curve.check(CalibratedModel(), "acs-free", "attention_concentration", made)
    with pytest.raises(CalibrationError, match=says):
        curve.check(CalibratedModel(), "acs-free", "attention_concentration", wanted)


@pytest.mark.parametrize(("width", "fits"), [(5, False), (64, True), (None, True)])
def test_a_probe_of_another_width_does_not_fit(width, fits):
    model = CalibratedModel()
    model.hidden_size = width
    curve = replace(CURVE, presence=PresenceProbe((0.1,) * 64, 0.0))
    said = r"presence probe reads hidden states of 64 numbers, those of tiny have 5\. Make one"
    with nullcontext() if fits else pytest.raises(CalibrationError, match=said):
        curve.check(model, "acs-free", "attention_concentration")


def test_a_curve_of_one_look_is_written_as_before():
    assert "second_look" not in CURVE.to_dict()


def points(*values):
    """Working points of (wanted, min_score, precision, kept) and, optionally, answers."""
    return [dict(zip(("wanted", "min_score", "precision", "kept", "answers"), v, strict=False)) for v in values]


POINTS = (WorkingPoint(0.6, 0.2, 0.65, 0.9, 90), WorkingPoint(0.8, 0.5, 0.9, 0.4, 40))
FULL = replace(CURVE, iou_x=(0.0, 1.0), iou_y=(0.1, 0.9), working_points=POINTS)


def test_expected_iou_and_working_points_survive_the_file(tmp_path):
    FULL.save(tmp_path / "c.json")
    loaded = Calibration.load(tmp_path / "c.json")
    assert loaded == FULL
    assert loaded.expected_iou(np.array([0.0, 0.5, 2.0])) == pytest.approx([0.1, 0.5, 0.9])
    assert CURVE.expected_iou(np.array([0.5])) is None


@pytest.mark.parametrize(("wanted", "place"), [(0.5, 0), (0.6, 0), (0.7, 1), (0.8, 1), (0.9, None)])
def test_the_threshold_for_a_precision_is_one_that_keeps_it(wanted, place):
    assert FULL.working_point(wanted) == (None if place is None else POINTS[place])


def test_a_threshold_of_an_earlier_version_has_no_bound(tmp_path):
    """It was only measured: the file still loads, but states no threshold for a precision."""
    data = FULL.to_dict()
    for point in data["working_points"]:
        del point["answers"]
    (tmp_path / "c.json").write_text(json.dumps(data))
    loaded = Calibration.load(tmp_path / "c.json")
    assert [p.min_score for p in loaded.working_points] == [0.2, 0.5] and loaded.working_point(0.5) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"iou_y": [0.9, 0.1]}, '"iou_y" must never decrease'),
        ({"iou_x": []}, '"iou_x" and "iou_y" must be lists of one equal length'),
        ({"iou_y": [0.1, 1.5]}, '"iou_y" must lie in'),
        ({"working_points": 3}, '"working_points" must be a list'),
        ({"working_points": [3]}, r'"working_points\[0\]" must be an object'),
        ({"working_points": [{"wanted": 0.5}]}, r"working_points\[0\]"),
        (
            {"working_points": [{"wanted": 0.5, "min_score": 2, "precision": 0.5, "kept": 1}]},
            r'"working_points\[0\]" must hold numbers in \[0, 1\]',
        ),
        *(({"working_points": points((0.6, 0.2, 0.61, 0.9, n))}, r"\[0\].answers") for n in (-1, 2.5, True, 10**40)),
    ],
)
def test_damaged_additions_are_named(tmp_path, change, words):
    (tmp_path / "c.json").write_text(json.dumps(FULL.to_dict() | change))
    with pytest.raises(CalibrationError, match=words):
        Calibration.load(tmp_path / "c.json")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (points((0.6, 0.5, 0.61, 0.4), (0.8, 0.2, 0.83, 0.9)), "a higher precision needs a higher threshold"),
        (points((0.8, 0.2, 0.83, 0.9), (0.6, 0.5, 0.61, 0.4)), "a higher precision needs a higher threshold"),
        (points((0.6, 0.2, 0.61, 0.4), (0.8, 0.5, 0.83, 0.9)), "which keeps less"),
        (points((0.6, 0.2, 0.61, 0.9), (0.6, 0.5, 0.83, 0.4)), "the wanted precision 0.6 twice"),
        (points((0.8, 0.2, 0.61, 0.9)), "the precision 0.61 is below the wanted 0.8"),
        (points((0.6, -0.1, 0.61, 0.9)), r"must hold numbers in \[0, 1\]"),
        (points((0.6, 1e308, 0.61, 0.9)), r"must hold numbers in \[0, 1\]"),
    ],
)
def test_working_points_that_contradict_each_other_are_refused(tmp_path, given, says):
    (tmp_path / "c.json").write_text(json.dumps(FULL.to_dict() | {"working_points": given}))
    with pytest.raises(CalibrationError, match=says):
        Calibration.load(tmp_path / "c.json")
    with pytest.raises(CalibrationError, match=says):
        replace(CURVE, working_points=tuple(WorkingPoint(**p) for p in given))


def test_equal_thresholds_and_rounded_precisions_are_working_points(tmp_path):
    given = points((0.5, 0.01, 0.8, 1.0), (0.6, 0.01, 0.8, 1.0), (0.9, 0.7, 0.89996, 0.3))
    (tmp_path / "c.json").write_text(json.dumps(FULL.to_dict() | {"working_points": given}))
    assert Calibration.load(tmp_path / "c.json").working_points[-1].min_score == 0.7


@pytest.mark.parametrize("x", [(1.5, 2.0), (-3.0, -1.0), (5.0, 1e9)])
def test_a_curve_beyond_all_confidences_does_not_fit(x):
    for change in ({"x": x, "y": (0.5, 0.99)}, {"iou_x": x, "iou_y": (0.5, 0.99)}):
        with pytest.raises(CalibrationError, match=r"does not fit: it is made for .*, but confidences lie in \[0, 1\]"):
            replace(CURVE, **change).check(CalibratedModel(), "acs-free", "attention_concentration")


def test_a_count_of_no_sensible_size_is_refused(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps(CURVE.to_dict() | {"num_samples": 10**40}))
    with pytest.raises(CalibrationError, match='"num_samples" must be a whole number'):
        Calibration.load(tmp_path / "c.json")


@pytest.mark.parametrize("key", ["x", "working_points"])
def test_a_field_that_stands_twice_is_refused(tmp_path, key):
    text = json.dumps(CURVE.to_dict())
    (tmp_path / "a.json").write_text(f'{{"{key}": 1, {text[1:]}')
    with pytest.raises(CalibrationError, match=f"a.json: the key '{key}' stands twice"):
        Calibration.load(tmp_path / "a.json")
