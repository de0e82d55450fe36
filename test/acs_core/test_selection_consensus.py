import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acs_core.attention import Evidence
from acs_core.geometry import Box
from acs_core.selection import MajorityVote, MeanBox
from acs_core.types import Candidate, ScoreKind

NO_EVIDENCE = Evidence(np.zeros((0, 4, 1, 1), np.float32), None, (1, 1))
A, B, C = (10, 20, 30, 40), (11, 20, 31, 42), (10, 22, 33, 41)
FAR = (200, 200, 210, 210)


def candidates(corners):
    return [Candidate(Box(*map(float, c)), "key", i, 0, (1, 3, 5, 7)) for i, c in enumerate(corners)]


def answer(selector, corners):
    """The box published for all of ``corners``, and the candidate that it stands for."""
    given = candidates(corners)
    quality = selector.qualities(given, NO_EVIDENCE, (300, 300))
    best = int(np.argmax(quality))
    order = sorted(range(len(given)), key=lambda i: -quality[i])
    return selector.box_of(best, order, given, quality), best


@pytest.mark.parametrize(
    ("corners", "expected", "best"),
    [
        ([A], A, 0),
        # every coordinate for itself: x1 and y1 have a majority; for x2 and y2 it is the value nearest the median
        ([A, B, C], (10, 20, 31, 41), 1),
        ([B, A, A], A, 1),
        # two values as often and as near to the median: the earlier one
        ([A, B], A, 0),
        ([B, A], B, 0),
        ([A, FAR, FAR], FAR, 1),
        # what arithmetic left in the last bits is one value
        ([(10.000000001, 20, 30, 40), (10, 20, 30, 40), (9, 20, 30, 40)], (10.000000001, 20, 30, 40), 0),
    ],
)
def test_majority_vote(corners, expected, best):
    box, stands_for = answer(MajorityVote(), corners)
    assert box.as_tuple() == pytest.approx(expected)
    assert stands_for == best


def test_majorities_that_enclose_nothing_give_way_to_the_best_box():
    corners = [(90, 0, 95, 10), (90, 0, 99, 10), (10, 0, 20, 10), (12, 0, 20, 10)]
    box, best = answer(MajorityVote(), corners)  # x1 90, x2 20
    assert box.as_tuple() == corners[best]


@pytest.mark.parametrize(
    ("corners", "expected", "best"),
    [([A], A, 0), ([A, B], (10.5, 20, 30.5, 41), 1), ([A, A, FAR], (220 / 3, 80, 90, 290 / 3), 0)],
)
def test_mean_box(corners, expected, best):
    box, stands_for = answer(MeanBox(), corners)
    assert box.as_tuple() == pytest.approx(expected)
    assert stands_for == best


@pytest.mark.parametrize("selector", [MajorityVote(), MeanBox()])
def test_only_the_members_of_a_group_have_a_say(selector):
    given = candidates([FAR, A, FAR, A])
    assert selector.box_of(1, [1, 3], given, np.zeros(4)).as_tuple() == A


@pytest.mark.parametrize("selector", [MajorityVote(), MeanBox()])
def test_they_claim_no_score_and_need_nothing(selector):
    assert selector.score_kind is ScoreKind.NONE and selector.needs.heads is None and not selector.needs.maps
    assert selector.qualities([], NO_EVIDENCE, (9, 9)).tolist() == []
    assert selector.confidences([], NO_EVIDENCE, np.zeros(0)) is None


corner = st.integers(0, 40)
box = st.tuples(corner, corner, st.integers(1, 9), st.integers(1, 9)).map(lambda v: (*v[:2], v[0] + v[2], v[1] + v[3]))


@given(st.lists(box, min_size=1, max_size=12))
def test_the_mean_lies_within_the_hull_and_no_order_matters(corners):
    (x1, y1, x2, y2), lower, upper = answer(MeanBox(), corners)[0].as_tuple(), *_range(corners)
    assert all(lo - 1e-9 <= v <= hi + 1e-9 for lo, v, hi in zip(lower, (x1, y1, x2, y2), upper, strict=True))
    assert x2 > x1 and y2 > y1
    assert answer(MeanBox(), corners[::-1])[0].as_tuple() == pytest.approx((x1, y1, x2, y2))


@given(st.lists(box, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_a_clear_majority_wins_in_any_order(corners, random):
    corners = [*corners, *[A] * (len(corners) + 1)]
    random.shuffle(corners)
    assert answer(MajorityVote(), corners)[0].as_tuple() == A


@given(st.lists(box, min_size=1, max_size=12))
def test_a_majority_is_made_of_written_values(corners):
    made = answer(MajorityVote(), corners)[0]
    assert made.area > 0
    assert all(v in {c[k] for c in corners} for k, v in enumerate(made.as_tuple()))


def _range(corners):
    columns = list(zip(*corners, strict=True))
    return [min(c) for c in columns], [max(c) for c in columns]
