from eval_parts import SQUARE, column, near, question, tables_by_name

from acs_core.evaluation.records import Evaluation, Group, Prediction, Run
from acs_core.evaluation.tables import assess, tables_of


def test_table_2_marks_the_best_and_the_best_training_free():
    table = tables_by_name()["small-accuracy"]
    accuracy = column(table, "Acc@0.5 %")
    competing = {key: cell for key, cell in accuracy.items() if key[0] != "best of N"}
    free = {key: cell for key, cell in competing.items() if key[0] != "acs-learned"}
    for cells, mark in ((competing, "best"), (free, "best_free")):
        top = max(cell.value for cell in cells.values())
        assert {key for key, cell in accuracy.items() if getattr(cell, mark)} == {
            key for key, cell in cells.items() if cell.value == top
        }
    assert all(cell.low <= cell.value <= cell.high for cell in accuracy.values())
    assert [row.cells[0].value for row in table.rows][:3] == ["Greedy", "Pass@1", "Pass@1"]
    assert [row.cells[1].value for row in table.rows][1:3] == [1.0, 0.5]
    assert column(table, "gain on greedy %")[("Greedy", None)].value is None


def test_tables_4_and_5_have_a_column_for_each_number_of_samples():
    table = tables_by_name(samples=(1, 3, 10))["small-samples-accuracy"]
    assert [c.title for c in table.columns][2:] == ["N = 1", "N = 3", "N = 10"]
    assert {row.cells[0].value for row in table.rows} == {"acs-free", "acs-learned"}
    assert all(sum(cell.best for cell in row.cells) >= 1 for row in table.rows)


def test_questions_about_what_is_not_there_count_as_false_alarms():
    questions = question(0), question(1, truth=())
    run = Run("published", None, 1, (Prediction((near(SQUARE, 0.9),)), Prediction((SQUARE,))))
    tables = {t.name: t for t in tables_of(assess(Evaluation("t", (Group("bag", "single", questions, (run,)),))))}
    key = ("published", None)
    assert column(tables["accuracy"], "Acc@0.5 %")[key].value == 100
    assert column(tables["detection"], "precision %")[key].value == 50
    assert column(tables["detection"], "false alarms %")[key].value == 100
