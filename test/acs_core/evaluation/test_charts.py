import pytest
from eval_parts import evaluation

from acs_core.evaluation.charts import charts_of, colours_of, entropy_charts
from acs_core.evaluation.metrics import measure

MADE = evaluation(40, temperatures=(0.5, 0.7, 1.0), samples=(1, 3, 10))
MEASURED = measure(MADE.groups[0], 100)
CHARTS = {chart.title: chart for chart in charts_of(MEASURED, colours_of([MADE]))}


def line(chart, name):
    (found,) = [s for s in chart.series if s.name == name]
    return found


def test_accuracy_against_temperature_is_that_of_the_table():
    chart = CHARTS["Temperature"]
    assert {s.name for s in chart.series} == {"Greedy", "Pass@1", "MajVote", "acs-free", "acs-learned", "best of N"}
    expected = {
        s.run.temperature: 100 * s.accuracy.value
        for s in MEASURED.scores
        if s.run.method == "acs-free" and s.run.samples == 10
    }
    assert dict(line(chart, "acs-free").points) == pytest.approx(expected)
    assert [x for x, _ in line(chart, "acs-free").points] == [0.5, 0.7, 1.0]
    assert line(chart, "Greedy").level and not line(chart, "acs-free").level
    assert line(chart, "acs-free").strong and line(chart, "acs-free").ends and not line(chart, "MajVote").strong


def test_accuracy_against_the_number_of_samples_is_evenly_spaced():
    chart = CHARTS["Number of samples"]
    assert chart.x_names == ("1", "3", "10")
    assert [x for x, _ in line(chart, "acs-free τ 0.5").points] == [0, 1, 2]
    assert {s.name.split(" ")[0] for s in chart.series} == {"acs-free", "acs-learned", "Greedy"}
    of_one = [s for s in chart.series if s.name.startswith("acs-free")]
    assert len({s.colour for s in of_one}) == 1 and len({s.dash for s in of_one}) == 3


def test_reliability_and_abstention_are_those_of_the_metrics():
    best = MEASURED.highlights[-1]
    bins = MEASURED.calibration(best).bins
    assert CHARTS["Reliability"].series[-1].points == tuple((b.stated, b.right) for b in bins)
    curve = CHARTS["Abstention"].series[-1].points
    assert curve[-1] == pytest.approx((100, 100 * MEASURED.risk_coverage(best).accuracy[-1]))
    assert curve[0][0] >= 5 and len(curve) <= 82


def test_a_method_has_one_colour_on_the_whole_page_and_ours_come_first():
    colours = colours_of([MADE, evaluation(10, seed=3)])
    assert len(set(colours.values())) == len(colours)
    assert {colours["acs-free"], colours["acs-learned"]} == {0, 1}
    for chart in CHARTS.values():
        assert all(s.colour == colours[s.name.split(" τ")[0]] for s in chart.series)


def test_entropy_has_a_chart_for_each_coordinate_on_one_scale():
    charts = entropy_charts(MADE)
    assert [c.title[-2:] for c in charts] == ["x1", "y1", "x2", "y2"]
    assert len({c.bounds for c in charts}) == 1
    assert [s.name for s in charts[0].series] == ["IoU > 0.7", "0 < IoU ≤ 0.3", "IoU = 0"]
    assert charts[0].shaded[0] == (3.5, 4.5) and len(charts[0].shaded) == 3


def test_a_chart_without_data_is_left_out():
    plain = evaluation(20, temperatures=(0.5,), samples=(10,), several=False)
    found = charts_of(measure(plain.groups[0], 100), colours_of([plain]))
    assert [c.title for c in found] == ["Reliability", "Abstention"]
    several = measure(MADE.groups[1], 100)
    assert charts_of(several, colours_of([MADE])) == []
