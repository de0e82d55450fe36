import pytest

from acs_core.agreement import settled
from acs_core.geometry import Box
from acs_core.types import Candidate, Response

HERE, NEAR, THERE = Box(0, 0, 10, 10), Box(0, 0, 10, 12), Box(50, 50, 60, 60)


def drawn(*answers):
    candidates = [
        Candidate(box, "", i, k, (0, 1, 2, 3)) for i, boxes in enumerate(answers) for k, box in enumerate(boxes)
    ]
    return candidates, [Response("", len(boxes), True) for boxes in answers]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([], False),
        ([[HERE], [NEAR]], False),  # too few to tell
        ([[HERE], [NEAR], [HERE]], True),
        ([[HERE], [NEAR], [THERE]], False),
        ([[HERE], [NEAR], [THERE], [HERE]], True),  # three of four
        ([[HERE], [THERE], [THERE], [HERE]], False),
        ([[], [], []], True),  # all say that it is not there
        ([[], [], [HERE]], False),
        ([[HERE, HERE, HERE], [], []], False),  # one response has one opinion
        ([[HERE, THERE], [THERE], [NEAR, THERE]], True),
    ],
)
def test_when_responses_agree(answers, expected):
    assert settled(*drawn(*answers)) is expected


def test_the_share_is_an_option():
    answers = drawn([HERE], [NEAR], [THERE])
    assert settled(*answers, share=0.6) and not settled(*answers, share=0.7)
