import numpy as np
import pytest

from acs_core.errors import ImageError, PhraseError
from acs_core.geometry import Box
from acs_core.request import GroundingRequest
from acs_core.types import SamplingConfig

IMAGE = np.zeros((40, 60, 3), np.uint8)


def test_defaults_and_cleaning():
    asked = GroundingRequest.of(IMAGE, ["  a   key "], {})
    assert (asked.phrases, asked.config, asked.image_size) == (("a key",), SamplingConfig(), (60, 40))
    assert asked.deadline_ms is None and not asked.multiple and asked.check_labels
    assert not GroundingRequest.of(IMAGE, ["key"], {"check_labels": False}).check_labels
    given = GroundingRequest.of(
        IMAGE, ["key", "dog"], {"sampling": SamplingConfig(3), "multiple": True, "min_score": 1.0}
    )
    assert (given.config.num_samples, given.multiple, given.min_score) == (3, True, 1.0)
    assert GroundingRequest.of(IMAGE, ["key"], {"sampling": None}).config == SamplingConfig()


@pytest.mark.parametrize(
    ("options", "config"),
    [
        ({"samples": 3, "temperature": 0.7, "seed": 5}, SamplingConfig(3, 0.7, seed=5)),
        ({"samples": "auto"}, SamplingConfig(auto=True)),
        ({"speculation": False}, SamplingConfig(speculation=False)),
        ({"sampling": SamplingConfig(speculation=False), "speculation": None}, SamplingConfig(speculation=False)),
        ({"sampling": SamplingConfig(4, auto=True), "samples": 3}, SamplingConfig(3)),
        ({"sampling": SamplingConfig(4, top_k=7, seed=1), "seed": 0}, SamplingConfig(4, top_k=7, seed=0)),
        ({"sampling": SamplingConfig(4), "samples": None, "temperature": None, "seed": None}, SamplingConfig(4)),
    ],
)
def test_single_sampling_parameters_replace_those_of_the_record(options, config):
    assert GroundingRequest.of(IMAGE, ["key"], options).config == config


def test_the_image_is_kept_whole_unless_it_is_not_wanted():
    region = Box(0, 0, 30, 30)
    assert GroundingRequest.of(IMAGE, ["key"], {"region": region}).kept_image is IMAGE
    assert GroundingRequest.of(IMAGE, ["key"], {"keep_image": False}).kept_image is None


@pytest.mark.parametrize(
    ("phrases", "options", "error", "message"),
    [
        ([], {}, ValueError, "phrases must hold 1 to 256"),
        (["key", ""], {}, PhraseError, "empty"),
        (["key"], {"min_score": 1.5}, ValueError, "min_score"),
        (["key"], {"min_votes": 0}, ValueError, "min_votes"),
        (["key"], {"check_labels": "no"}, TypeError, "check_labels"),
        (["key"], {"samples": "few"}, ValueError, "samples must be one of auto"),
        (["key"], {"samples": 0}, ValueError, "samples must be a whole number from 1 to 1024"),
        (["key"], {"temperature": 0}, ValueError, "temperature must be a number from 0.0001"),
        (["key"], {"speculation": "no"}, TypeError, "speculation"),
        (["key"], {"seed": 1.5}, TypeError, "seed must be a whole number"),
        (["key"], {"deadline_ms": 0.0}, ValueError, "deadline_ms"),
        (["key"], {"deadline_ms": float("nan")}, ValueError, "deadline_ms"),
        (["key"], {"dead_line": 3.0}, TypeError, "dead_line"),
    ],
)
def test_bad_questions_are_named(phrases, options, error, message):
    with pytest.raises(error, match=message):
        GroundingRequest.of(IMAGE, phrases, options)


def test_bad_pictures_are_named():
    with pytest.raises(ImageError):
        GroundingRequest.of(np.zeros((40, 60), np.uint8), ["key"], {})
