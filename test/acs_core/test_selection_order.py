import numpy as np
import pytest

from acs_core.attention import Evidence
from acs_core.geometry import Box
from acs_core.selection import FirstInOrder
from acs_core.types import Candidate, ScoreKind

NO_EVIDENCE = Evidence(np.zeros((0, 4, 1, 1), np.float32), None, (1, 1))


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([], []),
        ([(3, 0)], [1.0]),
        ([(0, 0), (0, 1), (2, 0), (2, 1)], [1.0, 0.75, 0.5, 0.25]),
        ([(2, 1), (0, 4)], [0.5, 1.0]),
    ],
)
def test_the_earlier_box_is_preferred(places, expected):
    candidates = [Candidate(Box(0, 0, 5, 5), "key", response, order, (1, 3, 5, 7)) for response, order in places]
    assert FirstInOrder("greedy", greedy_decoding=True).qualities(candidates, NO_EVIDENCE, (9, 9)).tolist() == expected


def test_it_claims_no_score_and_needs_no_attention():
    selector = FirstInOrder("first-valid", greedy_decoding=False)
    assert selector.score_kind is ScoreKind.NONE
    assert selector.confidences([], NO_EVIDENCE, np.zeros(0)) is None
    assert selector.needs.heads is None and not selector.needs.maps and not selector.needs.all_entropies


@pytest.mark.parametrize(
    ("responses", "expected"),
    [
        ([], []),
        ([0, 0, 2], [1.0, 2 / 3, None]),
        ([1, 2], [None, None]),  # the first response held no valid box: there is no answer
    ],
)
def test_pass_at_1_considers_the_first_response_alone(responses, expected):
    candidates = [Candidate(Box(0, 0, 5, 5), "key", r, i, (1, 3, 5, 7)) for i, r in enumerate(responses)]
    selector = FirstInOrder("pass-at-1", greedy_decoding=False, first_response_only=True)
    found = selector.qualities(candidates, NO_EVIDENCE, (9, 9))
    np.testing.assert_allclose(found, [np.nan if e is None else e for e in expected])
