import io
from dataclasses import replace

import pytest
from eval_parts import SQUARE, evaluation, near, question
from rich.console import Console

from acs_core.evaluation.compare import ComparisonError, changed_table, compare, comparison_table, comparison_tables
from acs_core.evaluation.records import Evaluation, Group, Prediction, Run
from acs_core.evaluation.table import print_tables
from acs_core.geometry import Box

MANY = evaluation(8, several=False)
FAR = Box(300, 300, 340, 340)
HIT, MISS = Prediction((near(SQUARE, 0.8),), (0.9,), latency_ms=100.0), Prediction((FAR,), (0.2,), latency_ms=200.0)


def made(answers, title="A", questions=None, method="published", name="bag", objects="single"):
    questions = questions or tuple(question(i) for i in range(len(answers)))
    return Evaluation(title, (Group(name, objects, questions, (Run(method, 0.5, 10, tuple(answers)),)),))


def cells(table):
    return {row.cells[0].value: row.cells for row in table.rows}


def test_a_comparison_worked_by_hand():
    (found,) = compare(made([HIT, MISS, MISS, HIT]), made([MISS, HIT, HIT, HIT], "B"))
    assert found.names == ("A", "B") and found.only == (0, 0) and found.moved == 0
    keys = [q.key for q in found.measured.group.questions]
    assert [keys[q] for q in found.won] == ["1:key", "2:key"] and [keys[q] for q in found.lost] == ["0:key"]
    rows = cells(comparison_table(found))
    assert [c.value for c in rows["Acc@0.5 %"][1:4]] == [50, 75, 25]
    assert [c.value for c in rows["mIoU %"][1:4]] == pytest.approx([40, 60, 20])
    assert rows["Acc@0.5 %"][3].low <= 25 <= rows["Acc@0.5 %"][3].high
    assert [c.value for c in rows["p50 ms"][1:4]] == [150, 100, -50]
    assert "calibration error %" in rows and rows["Acc@0.5 %"][4].value > 0.2


def test_the_same_twice_does_not_differ():
    e = evaluation(30)
    found = compare(e, e, draws=100)
    assert len(found) == sum(len(g.runs) for g in e.groups)
    for comparison in found:
        assert comparison.won == comparison.lost == [] and changed_table(comparison) is None
        for row in comparison_table(comparison).rows:
            assert row.cells[3].value == 0 and row.cells[4].value in (1, None)


def test_questions_are_matched_by_their_keys():
    first = made([HIT, MISS, HIT], questions=(question(0), question(1), question(2)))
    moved = question(1, truth=(FAR,))
    second = made([HIT, HIT, MISS, HIT], questions=(question(3), question(2), moved, question(0)))
    (found,) = compare(first, second)
    assert [q.key for q in found.measured.group.questions] == ["0:key", "2:key"]
    assert found.only == (0, 1) and found.moved == 1 and found.won == found.lost == []
    notes = " ".join(comparison_table(found).notes)
    assert "2 questions in both; 0 only in A, 1 only in B; 1 left out" in notes


def test_names_need_not_agree_where_there_is_only_one():
    (found,) = compare(made([HIT], name="one"), made([MISS], name="two", method="acs-learned"))
    assert found.labels == ("published τ 0.5", "acs-learned τ 0.5") and len(found.lost) == 1


def test_several_objects_are_compared_by_boxes():
    (found,) = compare(made([HIT], objects="several"), made([MISS], objects="several"))
    assert list(cells(comparison_table(found)))[:3] == ["precision %", "recall %", "F1 %"]


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (made([HIT]), made([HIT], questions=(question(5),)), "no question is in both"),
        (made([HIT]), made([HIT], questions=(question(0, truth=(FAR,)),)), "true boxes of every question differ"),
        (made([HIT]), made([HIT], objects="several"), "their measures differ"),
        (made([HIT, HIT], questions=(question(0), question(0))), made([HIT]), "one key"),
        (MANY, replace(MANY, groups=(replace(MANY.groups[0], runs=MANY.groups[0].runs[:0]),)), "no run in common"),
        (Evaluation("A", ()), Evaluation("B", ()), "no run in common"),
    ],
)
def test_what_cannot_be_compared_says_why(first, second, told):
    with pytest.raises(ComparisonError, match=told):
        compare(first, second)


@pytest.mark.parametrize(
    ("count", "image", "told"),
    [
        (24, None, "For Acc@0.5 go by it: it is exact"),
        (24, "one.png", "go by the larger p of both"),
        (8, None, "too few questions to test). With so few questions the table's p is not reliable either"),
    ],
)
def test_which_p_counts_is_said(count, image, told):
    questions = tuple(question(i, image=image if i < 2 else None) for i in range(count))
    (found,) = compare(made([HIT] * count, questions=questions), made([MISS] * count, questions=questions), draws=50)
    text = " ".join(comparison_table(found).notes)
    assert told in text and text.count("go by") == (2 if image is None and count == 24 else 1)
    assert "tests whether B - A of that measure is 0" in text


def test_long_lists_of_changes_are_cut_and_say_so():
    found = compare(made([HIT] * 3 + [MISS] * 5), made([MISS] * 3 + [HIT] * 5))
    table = comparison_tables(found, 2)[1]
    assert [row.cells[0].value for row in table.rows] == ["won", "won", "lost", "lost"]
    assert table.notes == ("4 more are not shown.",)
    assert len(comparison_tables(found)[1].rows) == 8
    console = Console(width=100, file=io.StringIO(), record=True)
    print_tables(comparison_tables(found, 2), console)
    assert "B won 5 questions and lost 3" in console.export_text()
