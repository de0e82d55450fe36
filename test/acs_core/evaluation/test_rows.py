import pytest

from acs_core.evaluation.records import Run
from acs_core.evaluation.rows import in_order, label, mark_best, percent
from acs_core.evaluation.statistics import Estimate
from acs_core.evaluation.table import Cell, TableRow


def run(method, temperature=0.5, kind="ours", learned=False):
    return Run(method, temperature, 10, (), kind, learned)


def test_methods_keep_their_order_and_temperatures_fall():
    runs = [run("b", 0.5), run("a", None), run("b", 1.0), run("a", 0.7)]
    assert [(runs[r].method, runs[r].temperature) for r in in_order(runs, range(4))] == [
        ("b", 1.0),
        ("b", 0.5),
        ("a", None),
        ("a", 0.7),
    ]
    assert in_order(runs, [3, 0]) == [0, 3]


@pytest.mark.parametrize(
    ("values", "runs", "best", "free"),
    [
        ([1.0, 3.0, 2.0], [run("a"), run("b", learned=True), run("c")], [1], [2]),
        ([1.0, 9.0], [run("a"), run("oracle", kind="bound")], [], []),  # one alone is not the best of anything
        ([2.0, 2.0, 1.0], [run("a"), run("b"), run("c")], [0, 1], [0, 1]),
        ([2.0, 2.0], [run("a"), run("b")], [], []),  # nor are all
        ([None, 2.0, 1.0], [run("a"), run("b"), run("c")], [1], [1]),
    ],
)
def test_marks(values, runs, best, free):
    marked = mark_best([TableRow((Cell("x"), Cell(v))) for v in values], runs, (1,))
    assert [i for i, row in enumerate(marked) if row.cells[1].best] == best
    assert [i for i, row in enumerate(marked) if row.cells[1].best_free] == free
    assert not any(row.cells[0].best for row in marked)


def test_the_lowest_may_be_the_best():
    marked = mark_best([TableRow((Cell(1.0),)), TableRow((Cell(2.0),))], [run("a"), run("b")], (0,), highest=False)
    assert [row.cells[0].best for row in marked] == [True, False]


def test_words():
    assert label(run("acs-free", 0.5)) == "acs-free τ 0.5" and label(run("greedy", None)) == "greedy"
    assert percent(Estimate(0.5, 0.4, 0.6)) == Cell(50.0, 40.0, 60.0) and percent(None) == Cell(None)
