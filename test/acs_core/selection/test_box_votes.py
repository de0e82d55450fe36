from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acs_core.attention import AttentionRecord
from acs_core.geometry import Box
from acs_core.selection.box_votes import Consensus, GridVote, LargestCluster, MajorityVote, MeanBox, MedianVote, Medoid
from acs_core.types import Candidate, ScoreKind

NO_EVIDENCE = AttentionRecord(np.zeros((0, 4, 1, 1), np.float32), None, (1, 1))
A, B, C = (10, 20, 30, 40), (11, 20, 31, 42), (10, 22, 33, 41)
FAR = (200, 200, 210, 210)
COMBINED = [MajorityVote(), MedianVote(), MeanBox(), GridVote()]


def candidates(corners):
    return [Candidate(Box(*map(float, c)), "key", i, 0, (1, 3, 5, 7)) for i, c in enumerate(corners)]


def answer(selector, corners):
    """The box published for all of ``corners``, and the candidate that it stands for."""
    given = candidates(corners)
    quality = selector.qualities(given, NO_EVIDENCE, (300, 300))
    best = int(np.argmax(quality))
    order = sorted(range(len(given)), key=lambda i: -quality[i])
    return selector.fuse(best, order, given, quality), best


@pytest.mark.parametrize(
    ("corners", "median", "first"),
    [
        ([A, B, C], (10, 20, 31, 41), (10, 20, 30, 40)),
        ([C, B, A], (10, 20, 31, 41), (10, 20, 33, 41)),
        ([A, FAR, FAR], FAR, FAR),
    ],
)
def test_ties_of_the_two_votes(corners, median, first):
    assert answer(MedianVote(), corners)[0].as_tuple() == pytest.approx(median)
    assert answer(MajorityVote(), corners)[0].as_tuple() == pytest.approx(first)


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
def test_majority_vote_median(corners, expected, best):
    box, stands_for = answer(MedianVote(), corners)
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


@pytest.mark.parametrize("selector", COMBINED, ids=lambda s: s.name)
def test_only_the_members_of_a_group_have_a_say(selector):
    given = candidates([FAR, A, FAR, A])
    assert selector.fuse(1, [1, 3], given, np.zeros(4)).as_tuple() == A


@pytest.mark.parametrize("selector", COMBINED, ids=lambda s: s.name)
def test_they_claim_no_score_and_need_nothing(selector):
    assert selector.score_kind is ScoreKind.NONE and selector.needs.heads is None and not selector.needs.maps
    assert selector.qualities([], NO_EVIDENCE, (9, 9)).tolist() == []
    assert selector.confidences([], NO_EVIDENCE, (9, 9), np.zeros(0)) is None


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


@pytest.mark.parametrize(
    ("corners", "expected"),
    [
        ([A], A),
        ([A, FAR, A], A),
        # what all three cover
        ([A, B, C], (11, 22, 30, 40)),
        # two regions with two votes each: the larger one
        ([A, B, (100, 100, 120, 140), (100, 100, 120, 140)], (100, 100, 120, 140)),
        # two separate parts of the same pair of boxes are two regions, not one box around both
        ([(0, 0, 10, 2), (0, 0, 2, 9), (0, 0, 10, 2), (5, 0, 10, 9)], (5, 0, 10, 2)),
    ],
)
def test_grid_vote(corners, expected):
    assert answer(GridVote(), corners)[0].as_tuple() == pytest.approx(expected)


@given(st.lists(box, min_size=1, max_size=8))
def test_the_grid_vote_is_the_pixel_vote(corners):
    """Compared with a count on a grid of single pixels: the box holds a pixel of the most votes, and touches it on all
    sides."""
    count = np.zeros((60, 60), int)
    for x1, y1, x2, y2 in corners:
        count[y1:y2, x1:x2] += 1
    x1, y1, x2, y2 = map(int, answer(GridVote(), corners)[0].as_tuple())
    most = count == count.max()
    inside = most[y1:y2, x1:x2]
    assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()


def rated(selector, corners, responses=None, drawn=0):
    given = [replace(c, response=r) for c, r in zip(candidates(corners), responses or range(len(corners)), strict=True)]
    record = replace(NO_EVIDENCE, num_responses=drawn)
    quality = selector.qualities(given, record, (300, 300))
    return quality, selector.confidences(given, record, (9, 9), quality), given


HALF = (10, 20, 30, 30)  # the upper half of A


@pytest.mark.parametrize(
    ("corners", "responses", "drawn", "expected"),
    [
        ([A], [0], 1, [1.0]),
        ([A], [0], 10, [0.1]),
        ([A, A, FAR], [0, 1, 2], 4, [0.5, 0.5, 0.25]),
        ([A, HALF], [0, 1], 2, [0.75, 0.75]),
        # of two boxes in one response the nearer one counts, once
        ([A, A, FAR], [0, 1, 1], 2, [1.0, 1.0, 0.5]),
        ([A, A], [0, 5], None, [1 / 3, 1 / 3]),  # the last response with a box is the sixth
        ([A, A], [0, 5], 3, [2 / 3, 2 / 3]),  # three of six count: the deadline cut off the others
    ],
)
@pytest.mark.parametrize("selector", [Medoid(), Consensus()], ids=lambda s: s.name)
def test_agreement_is_the_mean_iou_with_all_responses(selector, corners, responses, drawn, expected):
    quality, confidence, _ = rated(selector, corners, responses, drawn)
    assert quality.tolist() == pytest.approx(expected) and confidence.tolist() == pytest.approx(expected)
    assert selector.feature == "agreement" and selector.score_kind is ScoreKind.RANK_RELATIVE


def test_consensus_is_the_mean_of_what_agrees_with_the_medoid():
    quality, _, given = rated(Consensus(), [FAR, A, HALF, B, FAR])
    best = int(np.argmax(quality))
    assert best == 1
    box = Consensus().fuse(best, range(5), given, quality)
    assert box.as_tuple() == pytest.approx(np.mean([A, HALF, B], axis=0))
    assert Consensus().fuse(best, [1], given, quality).as_tuple() == A


def test_the_largest_cluster_counts_responses_before_agreement():
    spread = [(0, 0, 10, 10), (0, 0, 10, 18), (0, 0, 18, 18)]  # a chain of three responses at IoU 0.56
    corners, responses = [*spread, FAR, FAR, FAR], [0, 1, 2, 3, 4, 4]
    quality, confidence, _ = rated(LargestCluster(), corners, responses, 5)
    assert int(np.argmax(quality)) == 1  # the middle one of the chain
    assert confidence.max() == confidence[1] and (quality <= 1).all()
    tight, _, _ = rated(Medoid(), [*spread, FAR, FAR, FAR], [0, 1, 2, 3, 4, 5], 6)
    assert int(np.argmax(tight)) == 3  # the medoid prefers the boxes that agree best


@given(st.lists(box, max_size=12), st.integers(1, 4))
def test_agreement_is_a_share(corners, boxes_a_response):
    responses = [i // boxes_a_response for i in range(len(corners))]
    for selector in (Medoid(), LargestCluster()):
        quality, confidence, _ = rated(selector, corners, responses, len(corners))
        assert ((quality > 0) & (quality <= 1 + 1e-9)).all() and ((confidence > 0) & (confidence <= 1 + 1e-9)).all()


def _range(corners):
    columns = list(zip(*corners, strict=True))
    return [min(c) for c in columns], [max(c) for c in columns]
