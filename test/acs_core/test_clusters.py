import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acs_core.clusters import overlaps, union_find, votes
from acs_core.geometry import Box


def square(x, size=10.0):
    return Box(x, 0, x + size, size)


@pytest.mark.parametrize(
    ("boxes", "clusters"),
    [
        ([], []),
        ([square(0)], [0]),
        ([square(0), square(100)], [0, 1]),
        ([square(0), square(100), square(1)], [0, 1, 0]),
        ([square(50), square(0), square(51), square(1)], [0, 1, 0, 1]),
        # a chain: the ends do not overlap enough (IoU 1/4), but the middle one joins them
        ([square(0), square(6), square(3)], [0, 0, 0]),
        # IoU exactly 0.5 counts
        ([Box(0, 0, 10, 10), Box(0, 0, 5, 10)], [0, 0]),
        ([Box(0, 0, 10, 10), Box(0, 0, 4.9, 10)], [0, 1]),
    ],
)
def test_clusters(boxes, clusters):
    assert union_find(overlaps(boxes)) == clusters


@pytest.mark.parametrize(
    ("responses", "expected"),
    [
        ([0, 1, 2], [2, 2, 2]),
        ([0, 0, 0], [0, 0, 0]),  # one response that repeats itself agrees with nobody
        ([0, 0, 1], [1, 1, 1]),
    ],
)
def test_votes_count_other_responses(responses, expected):
    assert votes(overlaps([square(0), square(0.1), square(0.2)]), responses) == expected


def test_degenerate_boxes_still_agree_with_themselves():
    assert overlaps([Box(5, 5, 5, 5)]).tolist() == [[True]]


graphs = st.integers(0, 12).flatmap(
    lambda n: st.lists(st.tuples(st.integers(0, max(0, n - 1)), st.integers(0, max(0, n - 1))), max_size=20).map(
        lambda edges: (n, edges if n else [])
    )
)


@given(graphs)
def test_union_find_finds_connected_components(graph):
    n, edges = graph
    agree = np.eye(n, dtype=bool)
    for a, b in edges:
        agree[a, b] = agree[b, a] = True
    reach = np.linalg.matrix_power(agree.astype(float), max(1, n)) > 0
    numbers = union_find(agree)
    for i in range(n):
        for j in range(n):
            assert (numbers[i] == numbers[j]) == reach[i, j]
    firsts = list(dict.fromkeys(numbers))
    assert firsts == list(range(len(firsts)))
