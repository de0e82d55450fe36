import pytest

from acs_core.agreement import settled
from acs_core.geometry import Box
from acs_core.types import Candidate, Response

HERE, NEAR, THERE = Box(0, 0, 10, 10), Box(0, 0, 10, 12), Box(50, 50, 60, 60)
ROUGHLY = Box(0, 0, 10, 17)  # IoU 0.59 with HERE


def drawn(*answers):
    candidates = [
        Candidate(box, "", i, k, (0, 1, 2, 3)) for i, boxes in enumerate(answers) for k, box in enumerate(boxes)
    ]
    return candidates, [Response("", len(boxes), True) for boxes in answers]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([], False),
        ([[HERE], [NEAR], [HERE], [HERE]], False),  # too few to tell
        ([[HERE], [NEAR], [HERE], [HERE], [NEAR]], True),
        ([[HERE], [NEAR], [THERE], [HERE], [HERE]], True),  # four of five
        ([[HERE], [THERE], [THERE], [HERE], [HERE]], False),
        ([[HERE], [ROUGHLY], [ROUGHLY], [HERE], [HERE]], False),
        ([[], [], [], [], []], True),  # all say that it is not there
        ([[], [], [], [HERE], [HERE]], False),
        ([[HERE, HERE, HERE], [], [THERE], [], [HERE]], False),  # one response has one opinion
        ([[HERE, THERE], [THERE], [NEAR, THERE], [], [THERE]], True),
        ([[HERE]] * 5 + [[THERE]] * 2, False),  # five of seven
        ([[HERE]] * 6 + [[THERE]], True),
    ],
)
def test_when_responses_agree(answers, expected):
    assert settled(*drawn(*answers)) is expected


def test_responses_that_were_cut_off_say_nothing():
    assert not settled([], [Response("", 0, False)] * 5)
    assert settled([], [Response("", 0, True)] * 5)


def test_the_share_is_an_option():
    answers = drawn([HERE], [NEAR], [HERE], [THERE], [THERE])
    assert settled(*answers, share=0.6) and not settled(*answers, share=0.7)
