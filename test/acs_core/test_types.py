import pytest

from acs_core.geometry import Box
from acs_core.types import Detection, GroundingResult, SamplingConfig, ScoreKind


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"num_samples": 0}, "num_samples"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.01}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
    ],
)
def test_sampling_values_out_of_range_are_named(values, names):
    with pytest.raises(ValueError, match=names):
        SamplingConfig(**values)


def test_sampling_defaults_are_those_of_the_paper():
    config = SamplingConfig()
    assert (config.num_samples, config.temperature, config.top_p, config.top_k) == (10, 0.5, 0.9, 100)


@pytest.mark.parametrize(("scores", "best"), [((), None), ((0.3,), 0.3), ((0.3, 0.9, 0.5), 0.9)])
def test_best_is_the_highest_score(scores, best):
    detections = tuple(Detection(Box(0, 0, 1, 1), s, i) for i, s in enumerate(scores))
    result = GroundingResult("key", (9, 9), detections, (), (), "acs-free", ScoreKind.CALIBRATED, "m", None, 1)
    assert (result.best.score if result.best else None) == best
