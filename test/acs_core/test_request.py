import numpy as np
import pytest

from acs_core.errors import ImageError, PhraseError
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
    ("phrases", "options", "error", "message"),
    [
        ([], {}, ValueError, "phrases must hold 1 to 256"),
        (["key", ""], {}, PhraseError, "empty"),
        (["key"], {"min_score": 1.5}, ValueError, "min_score"),
        (["key"], {"min_votes": 0}, ValueError, "min_votes"),
        (["key"], {"check_labels": "no"}, TypeError, "check_labels"),
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
