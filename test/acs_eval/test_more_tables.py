import pytest
from eval_parts import SQUARE, column, question, tables_by_name

from acs_eval.records import Answer, Evaluation, Group, Run
from acs_eval.tables import assess, tables_of


def test_significance_is_against_greedy():
    table = tables_by_name()["small-significance"]
    assert ("Greedy", None) not in column(table, "won")
    points, accuracy = column(table, "Acc@0.5, points"), column(tables_by_name()["small-accuracy"], "Acc@0.5 %")
    for key, cell in points.items():
        assert cell.value == pytest.approx(accuracy[key].value - accuracy[("Greedy", None)].value)
    corrected = column(table, "p (Holm)")
    assert corrected[("best of N", 0.5)].value is None
    assert all(corrected[key].value >= cell.value for key, cell in column(table, "p").items() if corrected[key].value)


def test_sizes_and_categories_count_each_question_once():
    tables = tables_by_name()
    assert sum(int(cell.value) for cell in tables["small-size"].rows[-1].cells[2:]) == 40
    assert sum(row.cells[1].value for row in tables["small-category"].rows) == 40
    shown = [c.title for c in tables["small-category"].columns]
    assert shown[:3] == ["Category", "questions", "Greedy"] and len(shown) == 5


def test_reasons_are_counted():
    answers = [Answer(reason="cut off")] * 2 + [Answer(reason=f"rare {i}") for i in range(5)] + [Answer((SQUARE,))]
    group = Group("g", "single", tuple(question(i) for i in range(8)), (Run("m", None, 1, tuple(answers)),))
    table = tables_of(assess(Evaluation("t", (group,))))[-1]
    assert [c.title for c in table.columns][2:] == ["cut off", "rare 0", "rare 1", "rare 2", "rare 3", "other"]
    assert [cell.value for cell in table.rows[0].cells[2:]] == [2, 1, 1, 1, 1, 1]
