import csv
import json

from eval_parts import SQUARE, evaluation, question, tables_by_name

from acs_core.evaluation.records import Evaluation, Group, Prediction, Run
from acs_core.evaluation.tables import assess, tables_of, write_tables


def test_every_table_that_has_data_is_there():
    names = [
        "accuracy",
        "average-precision",
        "samples-accuracy",
        "samples-miou",
        "significance",
        "significance-free",
        "calibration",
        "abstention",
        "size",
    ]
    names += ["category", "latency", "unanswered"]
    assert set(tables_by_name()) == {f"small-{name}" for name in names} | {
        "several-detection",
        "regression",
        "critical-layers",
    }
    assert set(tables_by_name(several=False)) == {*names, "regression", "critical-layers"}


def test_a_table_without_data_is_left_out():
    run = Run("published", None, 1, (Prediction((SQUARE,)), Prediction((SQUARE,))))
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


def test_groups_whose_names_differ_in_signs_have_files_of_their_own(tmp_path):
    group = evaluation(8, several=False).groups[0]
    groups = [Group(name, "single", group.questions, group.runs[:1]) for name in ("a/b", "a b", "???")]
    tables = tables_of(assess(Evaluation("t", tuple(groups)), draws=100))
    files = write_tables(tables, tmp_path)
    assert len({f.name for f in files}) == len(tables) + 1 and (tmp_path / "a-b-accuracy.2.csv").is_file()
