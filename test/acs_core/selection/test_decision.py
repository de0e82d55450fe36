import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acs_core.geometry import Box
from acs_core.selection.decision import Decision, decide, why_no_candidates
from acs_core.types import Candidate, Outcome, Response


def candidate(x, response, order=0, size=10.0):
    return Candidate(Box(x, 0, x + size, size), "key", response, order, (1, 3, 5, 7))


def pick(places, qualities, *, scores=None, num_responses=None, **options):
    candidates = [candidate(*p) if isinstance(p, tuple) else candidate(p, i) for i, p in enumerate(places)]
    scores = qualities if scores is None else scores
    count = num_responses if num_responses is not None else len({c.response for c in candidates})
    return decide(candidates, np.array(qualities), np.array(scores), num_responses=count, **options)


def winners(decision):
    return [d.candidate for d in decision.detections]


def test_a_box_labelled_as_something_else_ranks_below():
    decision = pick([0, 50, 100], [0.3, 0.9, 0.2], mislabelled=[1])
    assert winners(decision) == [0]
    assert decision.candidates[1].outcome is Outcome.OUTRANKED and decision.candidates[1].quality == 0.9
    assert "which is not what was asked for (check_labels)" in decision.candidates[1].reason
    assert winners(pick([0, 50, 100], [0.3, 0.9, 0.2])) == [1]


def test_without_another_box_it_wins():
    assert winners(pick([0, 50], [0.3, 0.9], mislabelled=[0, 1])) == [1]
    assert winners(pick([0, 50], [np.nan, 0.9], mislabelled=[1])) == [1]


def test_it_is_no_object_of_its_own_and_no_vote():
    places, qualities = [0, 0, 50, 50, 0], [0.3, 0.4, 0.9, 0.8, 0.2]
    assert winners(pick(places, qualities, multiple=True)) == [2, 1]
    assert winners(pick(places, qualities, multiple=True, mislabelled=[2, 3])) == [1]
    assert winners(pick(places, qualities, multiple=True, mislabelled=[2, 0, 1])) == [3]  # one vote each


def test_it_takes_no_part_in_a_box_that_is_fused():
    members = []
    pick([0, 1, 2], [0.3, 0.9, 0.2], mislabelled=[1], fuse=lambda best, group: members.extend(group) or Box(0, 0, 1, 1))
    assert members == [0, 2]


@pytest.mark.parametrize(
    ("qualities", "options", "foremost"),
    [
        ([0.3, 0.9], {}, 1),
        ([0.3, 0.9], {"mislabelled": [1]}, 0),
        ([0.3, 0.9], {"mislabelled": [1], "min_score": 0.5}, 0),
        ([0.3, 0.9], {"min_score": 0.95}, 1),
    ],
)
def test_the_foremost_candidate(qualities, options, foremost):
    decision = pick([0, 50], qualities, **options)
    assert decision.foremost is decision.candidates[foremost]
    assert Decision((), ()).foremost is None


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
    decision = pick(places, qualities)
    assert winners(decision) == [winner]
    assert decision.candidates[winner].outcome is Outcome.SELECTED
    assert {c.outcome for i, c in enumerate(decision.candidates) if i != winner} <= {Outcome.OUTRANKED}
    assert all(c.reason for c in decision.candidates)
    assert decision.reason == ""


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
    decision = pick([0, 1, 50], [0.1, 0.8, 0.9], multiple=True, num_responses=10)
    assert decision.candidates[2].outcome is Outcome.FEW_VOTES
    assert decision.candidates[2].reason == "in 1 of 10 responses, 2 needed (min_votes)"
    assert decision.candidates[1].reason == "best quality, in 2 of 10 responses"


@pytest.mark.parametrize("multiple", [False, True])
def test_abstains_below_the_threshold(multiple):
    decision = pick([0, 1, 2], [0.1, 0.9, 0.5], scores=[0.9, 0.12, 0.9], min_score=0.3, multiple=multiple)
    assert decision.detections == ()
    assert decision.reason == "best score 0.12 is below 0.30 (min_score)"
    assert decision.candidates[1].outcome is Outcome.BELOW_THRESHOLD


def test_a_single_answer_says_how_many_responses_share_it():
    decision = pick([0, 1, 50, 51, 52], [0.9, 0.8, 0.3, 0.2, 0.1], num_responses=7)
    assert decision.candidates[0].reason == "best quality, in 2 of 7 responses"


def test_a_score_equal_to_the_threshold_passes():
    assert winners(pick([0], [0.3], min_score=0.3)) == [0]


def test_detections_come_by_falling_score_and_keep_their_values():
    decision = pick([0, 1, 50, 51], [0.9, 0.1, 0.8, 0.2], scores=[0.4, 0.1, 0.6, 0.1], multiple=True)
    assert [(d.candidate, d.score) for d in decision.detections] == [(2, 0.6), (0, 0.4)]
    assert [c.cluster for c in decision.candidates] == [0, 0, 1, 1]
    assert [c.quality for c in decision.candidates] == [0.9, 0.1, 0.8, 0.2]


def test_without_candidates_there_is_nothing():
    decision = pick([], [], num_responses=10)
    assert (decision.candidates, decision.detections) == ((), ())
    assert decision.reason


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
    decision = pick(places, qualities, num_responses=10, **options)
    assert winners(decision) == expected
    out = [c for c, q in zip(decision.candidates, qualities, strict=True) if np.isnan(q)]
    assert all((c.quality, c.outcome) == (0.0, Outcome.OUTRANKED) for c in out)
    assert all(c.reason == "the selector does not consider it" for c in out)
    if not expected:
        assert decision.reason == "the selector considers none of the candidate boxes"


@pytest.mark.parametrize(("multiple", "groups"), [(False, [(1, [1, 2, 3, 0])]), (True, [(1, [1, 0]), (2, [2, 3])])])
def test_a_group_may_publish_a_box_of_its_own(multiple, groups):
    asked = []

    def box_of(best, members):
        asked.append((best, list(members)))
        return Box(0, 0, best + 1, 7)

    decision = pick([0, 1, 50, 51], [0.1, 0.8, 0.6, 0.3], multiple=multiple, fuse=box_of)
    assert asked == groups
    assert [(d.candidate, d.box) for d in decision.detections] == [(b, Box(0, 0, b + 1, 7)) for b, _ in groups]
    assert decision.candidates[1].box == Box(1, 0, 11, 10)  # what the model said stays as it was


def test_a_refused_group_makes_no_box():
    def box_of(best, members):
        raise AssertionError("asked for a box that nobody sees")

    assert pick([0], [0.1], min_score=0.5, fuse=box_of).detections == ()


@given(
    st.lists(st.tuples(st.floats(0, 60), st.integers(0, 5), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])), min_size=1),
    st.booleans(),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.6]),
)
def test_every_candidate_gets_one_verdict_and_winners_are_best(rows, multiple, min_votes, min_score):
    places, qualities = [(x, response) for x, response, _ in rows], [q for *_, q in rows]
    decision = pick(places, qualities, num_responses=6, multiple=multiple, min_votes=min_votes, min_score=min_score)
    assert len(decision.candidates) == len(rows)
    assert all(c.reason for c in decision.candidates)
    selected = [i for i, c in enumerate(decision.candidates) if c.outcome is Outcome.SELECTED]
    assert sorted(winners(decision)) == selected
    assert bool(decision.reason) != bool(selected)
    for i in selected:
        rivals = [c for c in decision.candidates if not multiple or c.cluster == decision.candidates[i].cluster]
        assert qualities[i] == max(c.quality for c in rivals)
        assert qualities[i] >= min_score
    if not multiple:
        assert len(selected) <= 1


@pytest.mark.parametrize(
    ("problems", "said"),
    [
        (["a"], "no box in the response: a"),
        (["a", "a"], "no box in all 2 responses: a"),
        (["a", "b", "b"], "no box in any of 3 responses: 2 x b, 1 x a"),
        ([""], "no box in the response: no usable box"),
    ],
)
def test_reasons(problems, said):
    assert why_no_candidates([Response("", 0, True, p) for p in problems]) == said


def test_a_decision_keeps_the_qualities_of_the_selector():
    found = pick([0, 50, 100], [0.2, np.nan, 0.5])
    np.testing.assert_array_equal(found.qualities, [0.2, np.nan, 0.5])
    assert found.candidates[1].quality == 0.0
    np.testing.assert_array_equal(pick([0, 50], [np.nan, np.nan]).qualities, [np.nan, np.nan])
    np.testing.assert_array_equal(pick([0], [0.3], min_score=0.5).qualities, [0.3])
