import numpy as np
import pytest

from acs_core.attention import AttentionRecord
from acs_core.geometry import Box
from acs_core.selection.registry import FirstResponse, SmallestBox
from acs_core.types import Candidate, ScoreKind

NO_EVIDENCE = AttentionRecord(np.zeros((0, 4, 1, 1), np.float32), None, (1, 1))


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
    assert FirstResponse("greedy", greedy_decoding=True).qualities(candidates, NO_EVIDENCE, (9, 9)).tolist() == expected


def test_it_claims_no_score_and_needs_no_attention():
    selector = FirstResponse("first-valid", greedy_decoding=False)
    assert selector.score_kind is ScoreKind.NONE
    assert selector.confidences([], NO_EVIDENCE, (9, 9), np.zeros(0)) is None
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
    selector = FirstResponse("pass-at-1", greedy_decoding=False, first_response_only=True)
    found = selector.qualities(candidates, NO_EVIDENCE, (9, 9))
    np.testing.assert_allclose(found, [np.nan if e is None else e for e in expected])


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
    np.testing.assert_allclose(SmallestBox().qualities(candidates, NO_EVIDENCE, (20, 10)), expected)


def test_it_claims_no_score_and_needs_nothing():
    selector = SmallestBox()
    assert selector.score_kind is ScoreKind.NONE and not selector.greedy_decoding
    assert selector.confidences([], NO_EVIDENCE, (9, 9), np.zeros(0)) is None
    assert selector.needs.heads is None and not selector.needs.maps and not selector.needs.token_statistics
