import numpy as np
import pytest

from acs_core.attention import Evidence
from acs_core.geometry import Box
from acs_core.selection import Smallest
from acs_core.types import Candidate, ScoreKind

NO_EVIDENCE = Evidence(np.zeros((0, 4, 1, 1), np.float32), None, (1, 1))


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([], []),
        ([Box(0, 0, 20, 10)], [0.0]),
        ([Box(0, 0, 10, 10), Box(0, 0, 2, 1), Box(5, 5, 15, 15)], [0.5, 0.99, 0.5]),
    ],
)
def test_the_quality_is_the_share_that_is_left_free(boxes, expected):
    candidates = [Candidate(b, "key", i, 0, (1, 3, 5, 7)) for i, b in enumerate(boxes)]
    np.testing.assert_allclose(Smallest().qualities(candidates, NO_EVIDENCE, (20, 10)), expected)


def test_it_claims_no_score_and_needs_nothing():
    selector = Smallest()
    assert selector.score_kind is ScoreKind.NONE and not selector.greedy_decoding
    assert selector.confidences([], NO_EVIDENCE, np.zeros(0)) is None
    assert selector.needs.heads is None and not selector.needs.maps and not selector.needs.token_entropy
