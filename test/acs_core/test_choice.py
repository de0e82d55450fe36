import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acs_core.choice import choose
from acs_core.geometry import Box
from acs_core.types import Candidate, Outcome


def candidate(x, response, order=0, size=10.0):
    return Candidate(Box(x, 0, x + size, size), "key", response, order, (1, 3, 5, 7))


def pick(places, qualities, *, scores=None, num_responses=None, **options):
    candidates = [candidate(*p) if isinstance(p, tuple) else candidate(p, i) for i, p in enumerate(places)]
    scores = qualities if scores is None else scores
    count = num_responses if num_responses is not None else len({c.response for c in candidates})
    return choose(candidates, np.array(qualities), np.array(scores), num_responses=count, **options)


def winners(choice):
    return [d.candidate for d in choice.detections]


@pytest.mark.parametrize(
    ("places", "qualities", "winner"),
    [
        ([0, 50, 100], [0.2, 0.9, 0.5], 1),
        ([0], [0.0], 0),
        # equal: the one that another response agrees with
        ([0, 50, 51], [0.7, 0.7, 0.1], 1),
        # equal, and the agreeing box comes from the same response: no vote, so the earlier one
        ([(0, 0), (50, 1, 0), (51, 1, 1)], [0.7, 0.7, 0.1], 0),
        # equal in everything: the earlier one
        ([0, 50], [0.7, 0.7], 0),
        # differences below arithmetic noise are ties
        ([0, 50], [0.7, 0.7 + 1e-12], 0),
    ],
)
def test_single_object(places, qualities, winner):
    choice = pick(places, qualities)
    assert winners(choice) == [winner]
    assert choice.candidates[winner].outcome is Outcome.SELECTED
    assert {c.outcome for i, c in enumerate(choice.candidates) if i != winner} <= {Outcome.OUTRANKED}
    assert all(c.reason for c in choice.candidates)
    assert choice.reason == ""


@pytest.mark.parametrize(
    ("places", "qualities", "options", "expected"),
    [
        # two clusters, best of each
        ([0, 1, 50, 51], [0.1, 0.8, 0.6, 0.3], {}, [1, 2]),
        # the box that one response alone saw is dropped
        ([0, 1, 50], [0.1, 0.8, 0.9], {}, [1]),
        ([0, 1, 50], [0.1, 0.8, 0.9], {"min_votes": 1}, [2, 1]),
        # no cluster forms: global best
        ([0, 50, 100], [0.1, 0.8, 0.9], {}, [2]),
        # a response that repeats itself has one vote
        ([(0, 0, 0), (1, 0, 1), (50, 1), (51, 2)], [0.9, 0.8, 0.3, 0.2], {}, [2]),
        # one response: every object of it, near-duplicates removed
        ([(0, 0, 0), (1, 0, 1), (50, 0, 2)], [1.0, 0.9, 0.8], {}, [0, 2]),
        ([0, 1, 50, 51], [0.1, 0.8, 0.6, 0.3], {"min_score": 0.7}, [1]),
    ],
)
def test_multiple_objects(places, qualities, options, expected):
    assert winners(pick(places, qualities, multiple=True, **options)) == expected


def test_clusters_seen_too_rarely_say_so():
    choice = pick([0, 1, 50], [0.1, 0.8, 0.9], multiple=True, num_responses=10)
    assert choice.candidates[2].outcome is Outcome.FEW_VOTES
    assert choice.candidates[2].reason == "in 1 of 10 responses, 2 needed"
    assert choice.candidates[1].reason == "best quality, in 2 of 10 responses"


@pytest.mark.parametrize("multiple", [False, True])
def test_abstains_below_the_threshold(multiple):
    choice = pick([0, 1, 2], [0.1, 0.9, 0.5], scores=[0.9, 0.12, 0.9], min_score=0.3, multiple=multiple)
    assert choice.detections == ()
    assert choice.reason == "best score 0.12 is below 0.30"
    assert choice.candidates[1].outcome is Outcome.BELOW_THRESHOLD


def test_a_single_answer_says_how_many_responses_share_it():
    choice = pick([0, 1, 50, 51, 52], [0.9, 0.8, 0.3, 0.2, 0.1], num_responses=7)
    assert choice.candidates[0].reason == "best quality, in 2 of 7 responses"


def test_a_score_equal_to_the_threshold_passes():
    assert winners(pick([0], [0.3], min_score=0.3)) == [0]


def test_detections_come_by_falling_score_and_keep_their_values():
    choice = pick([0, 1, 50, 51], [0.9, 0.1, 0.8, 0.2], scores=[0.4, 0.1, 0.6, 0.1], multiple=True)
    assert [(d.candidate, d.score) for d in choice.detections] == [(2, 0.6), (0, 0.4)]
    assert [c.cluster for c in choice.candidates] == [0, 0, 1, 1]
    assert [c.quality for c in choice.candidates] == [0.9, 0.1, 0.8, 0.2]


def test_without_candidates_there_is_nothing():
    choice = pick([], [], num_responses=10)
    assert (choice.candidates, choice.detections) == ((), ())
    assert choice.reason


NAN = float("nan")


@pytest.mark.parametrize(
    ("places", "qualities", "options", "expected"),
    [
        ([0, 50, 100], [NAN, 0.2, NAN], {}, [1]),
        ([0, 50, 100], [0.1, NAN, 0.2], {}, [2]),
        ([0, 1], [NAN, NAN], {}, []),
        # several objects: responses that are not considered have no vote, and none is asked of them
        ([(0, 0, 0), (50, 0, 1), (0, 1), (50, 2)], [1.0, 0.9, NAN, NAN], {"multiple": True}, [0, 1]),
        ([(0, 0), (1, 1), (50, 2), (51, 3)], [0.9, 0.8, 0.7, NAN], {"multiple": True}, [0]),
    ],
)
def test_what_is_not_considered_takes_no_part(places, qualities, options, expected):
    choice = pick(places, qualities, num_responses=10, **options)
    assert winners(choice) == expected
    out = [c for c, q in zip(choice.candidates, qualities, strict=True) if np.isnan(q)]
    assert all((c.quality, c.outcome) == (0.0, Outcome.OUTRANKED) for c in out)
    assert all(c.reason == "the selector does not consider it" for c in out)
    if not expected:
        assert choice.reason == "the selector considers none of the candidate boxes"


@pytest.mark.parametrize(("multiple", "groups"), [(False, [(1, [1, 2, 3, 0])]), (True, [(1, [1, 0]), (2, [2, 3])])])
def test_a_group_may_publish_a_box_of_its_own(multiple, groups):
    asked = []

    def box_of(best, members):
        asked.append((best, list(members)))
        return Box(0, 0, best + 1, 7)

    choice = pick([0, 1, 50, 51], [0.1, 0.8, 0.6, 0.3], multiple=multiple, box_of=box_of)
    assert asked == groups
    assert [(d.candidate, d.box) for d in choice.detections] == [(b, Box(0, 0, b + 1, 7)) for b, _ in groups]
    assert choice.candidates[1].box == Box(1, 0, 11, 10)  # what the model said stays as it was


def test_a_refused_group_makes_no_box():
    def box_of(best, members):
        raise AssertionError("asked for a box that nobody sees")

    assert pick([0], [0.1], min_score=0.5, box_of=box_of).detections == ()


@given(
    st.lists(st.tuples(st.floats(0, 60), st.integers(0, 5), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])), min_size=1),
    st.booleans(),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.6]),
)
def test_every_candidate_gets_one_verdict_and_winners_are_best(rows, multiple, min_votes, min_score):
    places, qualities = [(x, response) for x, response, _ in rows], [q for *_, q in rows]
    choice = pick(places, qualities, num_responses=6, multiple=multiple, min_votes=min_votes, min_score=min_score)
    assert len(choice.candidates) == len(rows)
    assert all(c.reason for c in choice.candidates)
    selected = [i for i, c in enumerate(choice.candidates) if c.outcome is Outcome.SELECTED]
    assert sorted(winners(choice)) == selected
    assert bool(choice.reason) != bool(selected)
    for i in selected:
        rivals = [c for c in choice.candidates if not multiple or c.cluster == choice.candidates[i].cluster]
        assert qualities[i] == max(c.quality for c in rivals)
        assert qualities[i] >= min_score
    if not multiple:
        assert len(selected) <= 1
