import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from acs_core.artifacts.heads import Head, HeadFile
from acs_core.artifacts.identity import ModelIdentity
from acs_core.attention import AttentionRecord
from acs_core.errors import HeadFileError, NonFiniteError
from acs_core.geometry import Box
from acs_core.selection.acs_free import AcsFree, average_ranks, mean_entropies, rank_sums
from acs_core.types import Candidate, ScoreKind

L, K, GRID = 2, 3, (4, 4)
UNIFORM = math.log(16)
IDENTITY = ModelIdentity("m", "internvl", L, K)
# Two heads for x1, one each for the others.
FILE = HeadFile(IDENTITY, "heads", ((Head(0, 0), Head(1, 2)), (Head(0, 1),), (Head(1, 0),), (Head(1, 1),)))


def record(x1, y1, x2, y2, spread=0.0):
    """Mean entropies per coordinate; the two heads of x1 lie ``spread`` to both sides of theirs."""
    entropy = np.full((len(x1), 4, L, K), np.nan, dtype=np.float32)
    entropy[:, 0, 0, 0], entropy[:, 0, 1, 2] = np.array(x1) - spread, np.array(x1) + spread
    entropy[:, 1, 0, 1], entropy[:, 2, 1, 0], entropy[:, 3, 1, 1] = y1, x2, y2
    return AttentionRecord(entropy=entropy, maps=None, grid=GRID)


def candidates(count):
    return [Candidate(Box(i, 0, i + 5, 5), "key", i, 0, (1, 3, 5, 7)) for i in range(count)]


def qualities(ev):
    return AcsFree(FILE).qualities(candidates(len(ev.entropy)), ev, (100, 100)).tolist()


@pytest.mark.parametrize(
    ("values", "ranks"),
    [
        ([], []),
        ([5.0], [1]),
        ([0.3, 0.1, 0.2], [3, 1, 2]),
        ([0.1, 0.1], [1.5, 1.5]),
        ([0.2, 0.1, 0.2, 0.4], [2.5, 1, 2.5, 4]),
        ([1.0, 1.0, 1.0, 0.0], [3, 3, 3, 1]),
    ],
)
def test_average_ranks(values, ranks):
    assert average_ranks(np.array(values)).tolist() == ranks


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        # best in all four coordinates, worst in all four, and in between
        (([1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2, 3]), [1.0, 0.5, 0.0]),
        # one coordinate with a far larger scale counts no more than another: R = 1+1+1+3 against 2+2+2+1, 3+3+3+2
        (([1, 2, 3], [1, 2, 3], [1, 2, 3], [900, 1, 2]), [0.75, 0.625, 0.125]),
        (([1], [1], [1], [1]), [1.0]),
        (([1, 1], [2, 2], [3, 3], [0, 0]), [0.5, 0.5]),
        # differences in the last bits are ties
        (([1, 1 + 1e-7], [2, 2], [3, 3], [0, 0]), [0.5, 0.5]),
    ],
)
def test_qualities_are_rank_sums_in_the_unit_interval(columns, expected):
    assert qualities(record(*columns)) == pytest.approx(expected)


def test_equation_4_is_the_mean_over_the_heads_of_each_coordinate():
    means = mean_entropies(record([1.0], [2.0], [0.5], [0.25], spread=0.75), FILE.pairs())
    assert means == pytest.approx(np.array([[1.0, 2.0, 0.5, 0.25]]))


def test_evidence_captured_for_other_heads_is_refused():
    ev = record([1.0], [2.0], [0.5], [0.25])
    ev.entropy[0, 2, 1, 0] = np.nan
    with pytest.raises(HeadFileError, match="x2"):
        mean_entropies(ev, FILE.pairs())


@pytest.mark.parametrize(
    ("entropy", "confidence"), [(0.0, 1.0), (UNIFORM / 2, 0.5), (UNIFORM, 0.0), (UNIFORM + 1e-5, 0.0)]
)
def test_confidence_is_how_concentrated_the_attention_is(entropy, confidence):
    ev = record(*[[entropy]] * 4)
    assert AcsFree(FILE).confidences(candidates(1), ev, (9, 9), np.ones(1)) == pytest.approx([confidence], abs=1e-6)


def test_one_cell_carries_no_information():
    ev = AttentionRecord(record([0.0], [0.0], [0.0], [0.0]).entropy, None, (1, 1))
    assert AcsFree(FILE).confidences(candidates(1), ev, (9, 9), np.ones(1)).tolist() == [0.0]


def test_what_it_says_about_itself():
    selector = AcsFree(FILE)
    assert selector.needs.heads == (((0, 0), (1, 2)), ((0, 1),), ((1, 0),), ((1, 1),))
    assert not selector.needs.maps and not selector.greedy_decoding
    assert selector.score_kind is ScoreKind.RANK_RELATIVE


tables = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 9), st.just(4)), elements=st.sampled_from([0.5, 1.0, 1.5, 2.0])
)


@given(tables)
def test_rank_sums_share_out_all_ranks(table):
    sums = rank_sums(table)
    count = len(table)
    assert sums.sum() == pytest.approx(4 * count * (count + 1) / 2)
    assert (sums >= 4).all() and (sums <= 4 * count).all()


@given(tables, st.tuples(*[st.floats(0.5, 50)] * 4), st.tuples(*[st.integers(-5, 5)] * 4))
def test_rank_sums_ignore_the_scale_of_each_coordinate(table, factors, shifts):
    assert rank_sums(table * np.array(factors) + np.array(shifts)) == pytest.approx(rank_sums(table))


@given(tables, st.randoms(use_true_random=False))
def test_rank_sums_do_not_depend_on_the_order_of_candidates(table, random):
    order = list(range(len(table)))
    random.shuffle(order)
    assert rank_sums(table[order]) == pytest.approx(rank_sums(table)[order])


@given(tables)
def test_lower_entropy_everywhere_is_never_worse(table):
    ev = record(*table.T)
    values = qualities(ev)
    for i, a in enumerate(table):
        for j, b in enumerate(table):
            if (a <= b).all():
                assert values[i] >= values[j] - 1e-9
    assert all(-1e-9 <= v <= 1 + 1e-9 for v in values)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_entropies_that_are_no_numbers_are_no_missing_head(value):
    broken = record([1.0, 2.0], [1.0, value], [1.0, 2.0], [1.0, 2.0])
    with pytest.raises(NonFiniteError, match="entropies of the attention for y1 are NaN or infinite"):
        qualities(broken)
