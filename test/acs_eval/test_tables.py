import csv
import json

import pytest
from eval_parts import SQUARE, evaluation, near, question

from acs_eval.records import Answer, Evaluation, Group, Run
from acs_eval.tables import assess, tables_of, write_tables


def made(**more):
    return {t.name: t for t in tables_of(assess(evaluation(40, **more), draws=200))}


def column(table, title):
    place = [c.title for c in table.columns].index(title)
    return {tuple(cell.value for cell in row.cells[:2]): row.cells[place] for row in table.rows}


def test_every_table_that_has_data_is_there():
    names = ["accuracy", "samples-accuracy", "samples-miou", "significance", "calibration", "abstention", "size"]
    names += ["category", "latency", "unanswered"]
    assert set(made()) == {f"small-{name}" for name in names} | {"several-detection", "regression"}
    assert set(made(several=False)) == {*names, "regression"}


def test_a_table_without_data_is_left_out():
    run = Run("published", None, 1, (Answer((SQUARE,)), Answer((SQUARE,))))
    alone = Evaluation(
        "t", (Group("bag", "single", (question(0), question(1)), (run,)), Group("empty", "single", (), ()))
    )
    assert [t.name for t in tables_of(assess(alone))] == ["accuracy"]
    assert [c.title for c in tables_of(assess(alone))[0].columns] == [
        "Method",
        "τ",
        "Acc@0.5 %",
        "mIoU %",
        "answered %",
    ]


def test_table_2_marks_the_best_and_the_best_training_free():
    table = made()["small-accuracy"]
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
    table = made(samples=(1, 3, 10))["small-samples-accuracy"]
    assert [c.title for c in table.columns][2:] == ["N = 1", "N = 3", "N = 10"]
    assert {row.cells[0].value for row in table.rows} == {"acs-free", "acs-learned"}
    assert all(sum(cell.best for cell in row.cells) >= 1 for row in table.rows)


def test_questions_about_what_is_not_there_count_as_false_alarms():
    questions = question(0), question(1, truth=())
    run = Run("published", None, 1, (Answer((near(SQUARE, 0.9),)), Answer((SQUARE,))))
    tables = {t.name: t for t in tables_of(assess(Evaluation("t", (Group("bag", "single", questions, (run,)),))))}
    key = ("published", None)
    assert column(tables["accuracy"], "Acc@0.5 %")[key].value == 100
    assert column(tables["detection"], "precision %")[key].value == 50
    assert column(tables["detection"], "false alarms %")[key].value == 100


def test_significance_is_against_greedy():
    table = made()["small-significance"]
    assert ("Greedy", None) not in column(table, "won")
    points, accuracy = column(table, "Acc@0.5, points"), column(made()["small-accuracy"], "Acc@0.5 %")
    for key, cell in points.items():
        assert cell.value == pytest.approx(accuracy[key].value - accuracy[("Greedy", None)].value)
    corrected = column(table, "p (Holm)")
    assert corrected[("best of N", 0.5)].value is None
    assert all(corrected[key].value >= cell.value for key, cell in column(table, "p").items() if corrected[key].value)


def test_sizes_and_categories_count_each_question_once():
    tables = made()
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


def test_files(tmp_path):
    tables = tables_of(assess(evaluation(20), draws=100))
    files = write_tables(tables, tmp_path / "tables")
    assert {f.name for f in files} == {"tables.json", *(f"{t.name}.csv" for t in tables)}
    listed = json.loads((tmp_path / "tables" / "tables.json").read_text())
    assert [t["name"] for t in listed] == [t.name for t in tables]
    with (tmp_path / "tables" / "small-accuracy.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, same in zip(rows, listed[0]["rows"], strict=True):
        assert float(row["Acc@0.5 %"]) == same["Acc@0.5 %"]["value"]


def test_numbers_follow_the_seed():
    first, again, other = (tables_of(assess(evaluation(20), draws=100, seed=s)) for s in (0, 0, 1))
    assert first == again and first != other
