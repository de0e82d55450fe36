import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acs_core.geometry import Box, iou_matrix, overlaps, union_find, votes

coordinate = st.floats(-100, 400, allow_nan=False)
boxes = st.builds(Box, coordinate, coordinate, coordinate, coordinate)


@pytest.mark.parametrize(
    ("a", "b", "iou"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (5, 0, 15, 10), 1 / 3),
        ((0, 0, 10, 10), (0, 0, 5, 10), 0.5),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0.0),
        ((0, 0, 10, 10), (50, 50, 60, 60), 0.0),
        ((5, 5, 5, 5), (5, 5, 5, 5), 0.0),
        ((0, 0, 10, 10), (8, 8, 2, 2), 0.0),
    ],
)
def test_iou(a, b, iou):
    assert Box(*a).iou(Box(*b)) == pytest.approx(iou)


@given(boxes)
def test_a_box_unpacks_and_prints_short(box):
    x1, y1, x2, y2 = box
    assert (x1, y1, x2, y2) == box.as_tuple() == tuple(np.array(box)) and box[-1] == y2 and len(box) == 4
    assert np.allclose(list(eval(repr(box))), list(box), rtol=1e-5)
    assert repr(Box(1, 2.5, 1234.5678, 40)) == "Box(1, 2.5, 1234.57, 40)"


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        ((1, 2, 3, 4), (1, 2, 3, 4)),
        ((-5, -5, 300, 300), (0, 0, 200, 100)),
        ((150, 50, 250, 90), (150, 50, 200, 90)),
        ((200, 0, 220, 50), None),
        ((-10, 0, 0, 50), None),
        ((5, 5, 5, 50), None),
        ((9, 5, 3, 50), None),
        ((math.nan, 0, 5, 5), None),
        ((0, 0, math.inf, 5), None),
    ],
)
def test_clip(box, clipped):
    result = Box(*box).clip(200, 100)
    assert (result.as_tuple() if result else None) == clipped


@pytest.mark.parametrize(
    ("box", "width", "height", "area", "center"),
    [((2, 3, 12, 8), 10, 5, 50, (7, 5.5)), ((4, 4, 2, 9), 0, 5, 0, (3, 6.5))],
)
def test_measures(box, width, height, area, center):
    b = Box(*box)
    assert (b.width, b.height, b.area, b.center) == (width, height, area, center)


@given(boxes)
def test_clip_stays_inside_and_is_idempotent(box):
    clipped = box.clip(200, 100)
    if clipped is not None:
        assert 0 <= clipped.x1 < clipped.x2 <= 200
        assert 0 <= clipped.y1 < clipped.y2 <= 100
        assert clipped.clip(200, 100) == clipped


@given(boxes, boxes)
def test_iou_is_symmetric_and_bounded(a, b):
    assert a.iou(b) == pytest.approx(b.iou(a))
    assert 0 <= a.iou(b) <= 1 + 1e-12


@given(st.lists(boxes, max_size=5), st.lists(boxes, max_size=5))
def test_matrix_agrees_with_single_boxes(left, right):
    matrix = iou_matrix(np.array([b.as_tuple() for b in left]), np.array([b.as_tuple() for b in right]))
    assert matrix.shape == (len(left), len(right))
    expected = [[a.iou(b) for b in right] for a in left]
    assert np.allclose(matrix, np.array(expected).reshape(matrix.shape))


@pytest.mark.parametrize("side", [5e-324, 1e-200, 1e-163])
def test_sides_whose_product_is_nothing_are_no_box(side):
    assert Box(0, 0, side, side).clip(200, 100) is None


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
