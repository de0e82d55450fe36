import numpy as np
import pytest
from helpers.score_parts import one_split

from acs_core.artifacts.score_model import ScoreModel

MODEL = one_split("mean IoU", ["confidence", "mean IoU"], threshold=0.123456789)


def test_it_predicts_from_the_named_column():
    assert MODEL.predict(np.array([[0.9, 0.1], [0.1, 0.2]])).tolist() == [0.1, 0.8]


def test_estimates_are_probabilities():
    wild = one_split("confidence", ["confidence"], low=-3.0, high=7.0)
    assert wild.predict(np.array([[0.0], [1.0]])).tolist() == [0.0, 1.0]


def test_it_comes_back_as_it_was_written_but_for_the_digits():
    back = ScoreModel.from_dict(MODEL.to_dict())
    assert back.features == MODEL.features
    assert back.trees.threshold[0, 0] == 0.1234568
    assert back.to_dict() == MODEL.to_dict() == back.rounded().to_dict()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"features": ["confidence"]}, "outside 0 to 0"),
        ({"features": ["confidence", "confidence"]}, "each once"),
        ({"features": "confidence"}, "must be a list of names"),
        ({"base": "0"}, '"base" must be a number'),
        ({"base": float("nan")}, "not finite"),
        ({"feature": [[0.5, 0, 0]]}, '"feature" must hold numbers'),
        ({"feature": [[7, 0, 0]]}, "outside 0 to 1"),
        ({"left": [[0, 1, 2]], "right": [[0, 1, 0]]}, "points back"),
        ({"value": [[0.0, True, 0.8]]}, '"value" must hold numbers'),
        ({"value": [[0.0, 0.1]]}, "must have one shape"),
        ({"value": []}, "must be a list of lists"),
        ({"threshold": [[0.5, 0.0, 0.0], [0.5]]}, "lists of one length"),
        ({"threshold": [[1e300, 0.0, 0.0]]}, "sensible size"),
    ],
)
def test_a_damaged_model_is_refused_in_words(change, said):
    with pytest.raises(ValueError, match=said):
        ScoreModel.from_dict(MODEL.to_dict() | change)


@pytest.mark.parametrize("field", sorted(MODEL.to_dict()))
def test_a_missing_field_is_named(field):
    damaged = {key: value for key, value in MODEL.to_dict().items() if key != field}
    with pytest.raises(ValueError, match=field):
        ScoreModel.from_dict(damaged)
