from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acs_core.evaluation.chart import BOTTOM, HEIGHT, TOP, Chart, Drawing, Series, cut, nice_ticks, spread

LINE = Series("acs-free", ((0.5, 60.0), (1.0, 50.0)), ((58.0, 62.0), (47.0, 53.0)), strong=True)
CHART = Chart("Temperature", "τ", "Acc@0.5", (LINE, Series("Greedy", ((0.5, 55.0),), level=True)), (0.5, 1.0))


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, (0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        (47.2, 68.9, (50, 55, 60, 65)),
        (0, 7, (0, 2, 4, 6)),
        (3, 3, (3,)),
        (-0.02, 0.02, (-0.02, -0.01, 0, 0.01, 0.02)),
    ],
)
def test_ticks_are_round(low, high, ticks):
    assert nice_ticks(low, high) == pytest.approx(ticks)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_lie_within(low, width):
    ticks = nice_ticks(low, low + width)
    assert 2 <= len(ticks) <= 8
    assert all(low - 1e-6 * width <= t <= low + width * (1 + 1e-6) for t in ticks)


@given(st.lists(st.floats(0, 300), max_size=15).map(sorted))
def test_labels_are_moved_apart_and_stay_in_order(heights):
    placed = spread(heights, 14, 0, 300)
    assert all(b - a >= 14 - 1e-6 for a, b in pairwise(placed))
    assert not placed or (placed[0] >= 0 and placed[-1] <= 300 + 1e-6)


def test_labels_that_do_not_touch_stay_where_they_are():
    assert spread([10, 50, 200], 14, 0, 300) == [10, 50, 200]
    assert spread([100, 100], 14, 0, 300) == [93, 107]


def test_places_in_the_picture():
    drawing = Drawing(CHART)
    assert drawing.x(0.5) < drawing.x(1.0) <= drawing.right < drawing.size[0]
    assert TOP <= drawing.y(62.0) < drawing.y(47.0) <= HEIGHT - BOTTOM
    assert drawing.y(1e9) == TOP and drawing.y(-1e9) == HEIGHT - BOTTOM  # never outside
    assert drawing.path(LINE) == f"M{drawing.x(0.5)} {drawing.y(60)}L{drawing.x(1)} {drawing.y(50)}"
    assert drawing.band(LINE).endswith("Z") and drawing.band(CHART.series[1]) == ""
    assert [text for _, text in drawing.x_ticks()] == ["0.5", "1"]
    assert [label[1] for label in drawing.labels()] == ["Greedy", "acs-free"]  # from the top, as the lines end


def test_a_level_line_goes_across():
    drawing = Drawing(CHART)
    assert drawing.path(CHART.series[1]) == f"M46 {drawing.y(55)}H{drawing.right:.1f}"


def test_one_point_and_no_points_have_a_place():
    for series in ((), (Series("a", ((3.0, 5.0),)),)):
        drawing = Drawing(Chart("t", "x", "y", series))
        assert drawing.x(3.0) >= 46 and TOP <= drawing.y(5.0) <= HEIGHT - BOTTOM and drawing.y_ticks()


def test_a_chart_in_words():
    assert CHART.told == "Acc@0.5 against τ. acs-free: 60 at 0.5, 50 at 1; Greedy: 55 everywhere."
    named = Chart("t", "N", "y", (Series("a", ((0.0, 5.0), (1.0, 6.0))),), (0.0, 1.0), x_names=("3", "10"))
    assert named.told == "y against N. a: 5 at 3, 6 at 10."


def test_long_names_are_cut():
    assert cut("short") == "short" and len(cut("x" * 99)) == 24
