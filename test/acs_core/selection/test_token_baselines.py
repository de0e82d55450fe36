import numpy as np
import pytest

from acs_core.attention import AttentionRecord
from acs_core.errors import NonFiniteError
from acs_core.generation.token_statistics import TokenStatistics
from acs_core.geometry import Box
from acs_core.selection.registry import make_selector
from acs_core.selection.token_baselines import MEASURES
from acs_core.types import Candidate, ScoreKind

# one response of nine tokens: "[", x1, ",", y1, ",", x2, ",", y2, "]"
LOGPROB = (-0.5, -1.0, -0.25, -2.0, 0.0, -0.5, 0.0, -4.0, -8.0)
ENTROPY = (9.0, 0.5, 9.0, 0.5, 9.0, 1.0, 9.0, 1.0, 9.0)
SURE = (0.0,) * 9


def candidate(response, tokens=(1, 3, 5, 7)):
    return Candidate(Box(0, 0, 5, 5), "key", response, 0, tokens)


def record(candidates, entropies, logprobs):
    tokens = TokenStatistics.of(candidates, dict(enumerate(entropies)), dict(enumerate(logprobs)))
    return AttentionRecord(np.zeros((len(candidates), 4, 1, 1), np.float32), None, (1, 1), tokens)


def qualities(name, candidates, entropies, logprobs):
    return make_selector(name, None).qualities(candidates, record(candidates, entropies, logprobs), (9, 9)).tolist()


@pytest.mark.parametrize(
    ("name", "nats"),
    [
        ("token-entropy", 0.5 + 0.5 + 1 + 1),
        ("coordinate-logprob", 1 + 0.25 + 2 + 0.5 + 4),  # without the brackets
        ("sequence-logprob", 16.25),
        ("mean-token-logprob", round(16.25 / 9, 3)),
    ],
)
def test_the_quality_falls_with_the_uncertainty(name, nats):
    both = [candidate(0), candidate(1)]
    assert qualities(name, both, [ENTROPY, SURE], [LOGPROB, SURE]) == pytest.approx([1 / (1 + nats), 1.0])


@pytest.mark.parametrize("name", MEASURES)
def test_rounding_errors_are_ties(name):
    nearly = tuple(v - 0.00001 for v in LOGPROB)
    first, second = qualities(name, [candidate(0), candidate(1)], [ENTROPY, ENTROPY], [LOGPROB, nearly])
    assert first == second


def test_the_box_is_found_wherever_it_stands_and_its_coordinates_in_any_order():
    boxes = [candidate(0, (1, 2, 3, 4)), candidate(0, (8, 7, 6, 5))]
    tokens = record(boxes, [ENTROPY], [LOGPROB]).tokens
    assert tokens.box_logprob.tolist() == pytest.approx([-3.25, -12.5])
    assert tokens.response_logprob.tolist() == [-16.25, -16.25]


def test_statistics_that_do_not_cover_a_candidate_are_an_error():
    with pytest.raises(IndexError):
        TokenStatistics.of([candidate(0)], {0: ENTROPY}, {0: LOGPROB[:7]})
    with pytest.raises(KeyError):
        TokenStatistics.of([candidate(1)], {0: ENTROPY}, {0: LOGPROB})


def test_some_and_both():
    first = record([candidate(0), candidate(1)], [ENTROPY, SURE], [LOGPROB, SURE]).tokens
    both = first.followed_by(first.only(np.array([False, True])))
    assert both.response_logprob.tolist() == [-16.25, 0, 0] and both.entropy.shape == (3, 4)
    assert both.response_tokens.tolist() == [9, 9, 9]


@pytest.mark.parametrize("name", MEASURES)
def test_they_need_statistics_and_say_so(name):
    selector = make_selector(name, None)
    assert selector.needs.token_statistics and selector.needs.heads is None and not selector.needs.maps
    assert selector.score_kind is ScoreKind.RANK_RELATIVE and not selector.greedy_decoding
    nothing = AttentionRecord(np.zeros((1, 4, 1, 1), np.float32), None, (1, 1))
    with pytest.raises(ValueError, match=f"{name} needs the token statistics"):
        selector.qualities([candidate(0)], nothing, (9, 9))
    assert selector.qualities([], record([], [], []), (9, 9)).tolist() == []


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_statistics_that_are_no_numbers_are_an_error(name, value):
    broken = (0.1, value, *LOGPROB[2:])
    with pytest.raises(NonFiniteError, match="statistics of a response are NaN"):
        qualities(name, [candidate(0)], [broken], [broken])
