import pytest

from acs_core.agreement import settled
from acs_core.geometry import Box
from acs_core.types import Candidate, Response

HERE, NEAR, THERE = Box(0, 0, 10, 10), Box(0, 0, 10, 12), Box(50, 50, 60, 60)
ROUGHLY = Box(0, 0, 10, 16)  # IoU 0.63 with HERE


def drawn(*answers):
    candidates = [
        Candidate(box, "", i, k, (0, 1, 2, 3)) for i, boxes in enumerate(answers) for k, box in enumerate(boxes)
    ]
    return candidates, [Response("", len(boxes), True) for boxes in answers]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([], False),
        ([[HERE], [NEAR], [HERE]], False),  # too few to tell
        ([[HERE], [NEAR], [HERE], [HERE]], True),
        ([[HERE], [NEAR], [THERE], [HERE]], True),  # three of four
        ([[HERE], [THERE], [THERE], [HERE]], False),
        ([[HERE], [ROUGHLY], [ROUGHLY], [HERE]], False),
        ([[], [], [], []], True),  # all say that it is not there
        ([[], [], [HERE], [HERE]], False),
        ([[HERE, HERE, HERE], [], [THERE], []], False),  # one response has one opinion
        ([[HERE, THERE], [THERE], [NEAR, THERE], []], True),
        ([[HERE]] * 5 + [[THERE]] * 2, False),  # five of seven
        ([[HERE]] * 6 + [[THERE]], True),
    ],
)
def test_when_responses_agree(answers, expected):
    assert settled(*drawn(*answers)) is expected


def test_responses_that_were_cut_off_say_nothing():
    assert not settled([], [Response("", 0, False)] * 4)
    assert settled([], [Response("", 0, True)] * 4)


def test_the_share_is_an_option():
    answers = drawn([HERE], [NEAR], [THERE], [THERE])
    assert settled(*answers, share=0.5) and not settled(*answers, share=0.6)
