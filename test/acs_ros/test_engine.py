from __future__ import annotations

import numpy as np
import pytest

from acs_core.types import SamplingConfig
from acs_ros.engine import Question, ask

IMAGE = np.zeros((6, 8, 3), np.uint8)


class Noting:
    """A grounder that notes what it was asked."""

    def __init__(self, result):
        self.result, self.asked = result, []

    def ground_many(self, image, phrases, **options):
        self.asked.append((image, tuple(phrases), options))
        return tuple(self.result(p) for p in phrases)


@pytest.mark.parametrize(("deadline", "expected"), [(0.0, None), (2.0, 2000.0)])
def test_a_question_is_one_call_with_all_that_it_says(result, deadline, expected):
    grounder = Noting(result)
    sampling = SamplingConfig(3, auto=True)
    question = Question(("key", "mug"), sampling, True, 0.5, 3, deadline, True, True)
    stop, stage = (lambda: False), (lambda name: None)
    assert [r.phrase for r in ask(grounder, IMAGE, question, stop, stage)] == ["key", "mug"]
    ((image, phrases, options),) = grounder.asked
    assert image is IMAGE and phrases == ("key", "mug")
    assert options == {
        "sampling": sampling,
        "multiple": True,
        "min_score": 0.5,
        "min_votes": 3,
        "deadline_ms": expected,
        "with_attention": True,
        "second_look": True,
        "should_stop": stop,
        "on_stage": stage,
    }
