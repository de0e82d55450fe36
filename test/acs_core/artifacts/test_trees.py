from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acs_core.artifacts.trees import Trees

# x0 <= 0.5 ? (x1 <= 2 ? 1 : 2) : 4, and a tree of one leaf, padded with leaves
TREES = Trees(
    feature=np.array([[0, 1, 0, 0, 0], [0, 0, 0, 0, 0]], np.int32),
    threshold=np.array([[0.5, 2.0, 0, 0, 0], [0, 0, 0, 0, 0]]),
    child=np.array([[[1, 2], [3, 4], [2, 2], [3, 3], [4, 4]], [[i, i] for i in range(5)]], np.int32),
    value=np.array([[0, 0, 4.0, 1.0, 2.0], [0.25, 0, 0, 0, 0]]),
    base=10.0,
    width=2,
)


@pytest.mark.parametrize(
    ("row", "expected"),
    [((0.0, 0.0), 11.25), ((0.5, 2.0), 11.25), ((0.5, 2.1), 12.25), ((0.6, 0.0), 14.25), ((np.nan, np.nan), 11.25)],
)
def test_rows_go_left_up_to_the_threshold(row, expected):
    assert TREES.predict(np.array([row])) == pytest.approx([expected])


def test_no_rows():
    assert TREES.predict(np.zeros((0, 2))).shape == (0,)


def edited(name, place, value):
    array = getattr(TREES, name).copy()
    array[place] = value
    return {name: array}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (edited("child", (0, 1, 0), 0), "child points back"),
        (edited("child", (0, 1, 0), 1), "child points back"),
        (edited("child", (0, 1, 1), 5), "out of its tree"),
        (edited("child", (0, 1, 1), -1), "child points back"),
        (edited("feature", (0, 0), 2), "feature holds numbers outside 0 to 1"),
        (edited("feature", (0, 0), -1), "feature holds numbers outside"),
        (edited("threshold", (0, 0), np.nan), "threshold holds values that are not finite"),
        (edited("value", (1, 0), np.inf), "value holds values that are not finite"),
        ({"base": float("nan")}, "base holds values"),
        (edited("threshold", (0, 0), 1.7e308), "threshold holds values above 1e\\+12"),
        (edited("value", (0, 2), -1.7e308), "value holds values above 1e\\+12"),
        ({"base": 1.7e308}, "base holds values above"),
        ({"value": np.zeros((2, 4))}, r"value has shape \(2, 4\), not \(2, 5\)"),
        ({"child": np.zeros((2, 5), np.int32)}, "child has shape"),
        ({"feature": np.zeros((0, 5), np.int32)}, "feature has shape"),
        ({"feature": np.zeros((2, 1001), np.int32)}, "of 1 to 1000 nodes"),
        ({"feature": np.zeros(3, np.int32)}, "feature has shape"),
    ],
)
def test_what_is_no_tree_is_named(change, says):
    with pytest.raises(ValueError, match=says):
        replace(TREES, **change)


def test_the_range_is_that_of_the_leaves():
    assert TREES.range == (11.0, 14.25)  # the padding of the second tree are leaves of 0


@given(st.lists(st.tuples(st.floats(), st.floats()), min_size=1, max_size=5))
def test_every_row_ends_in_a_leaf(rows):
    assert set(TREES.predict(np.array(rows)).tolist()) <= {11.25, 12.25, 14.25}
