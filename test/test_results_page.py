import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
from results_page import filled, shown

ROWS = [
    {"Method": "greedy", "tau": None, "Acc@0.5 %": {"value": 50.04, "low": 40.0, "high": 60.0}, "p": 0.0312},
    {"Method": "ours", "tau": 0.5, "Acc@0.5 %": {"value": 70.0, "low": 60.0, "high": 80.0}, "p": None},
]
TABLES = {("a", "accuracy"): ROWS}


@pytest.mark.parametrize(
    ("mark", "lines"),
    [
        (
            "a accuracy",
            [
                "| Method | tau | Acc@0.5 % | p |",
                "| --- | --- | --- | --- |",
                "| greedy | - | 50.0 [40.0, 60.0] | 0.031 |",
                "| ours | 0.5 | 70.0 [60.0, 80.0] | - |",
            ],
        ),
        ("a accuracy without tau, p", ["| Method | Acc@0.5 % |", "| --- | --- |"]),
        ("a accuracy only ours", ["| Method | tau | Acc@0.5 % |", "| --- | --- | --- |", "| ours | 0.5 |"]),
    ],
)
def test_a_table_takes_the_place_of_what_stood_there(mark, lines):
    page = f"text\n<!-- begin {mark} -->\nold\n<!-- end -->\nmore\n"
    made = filled(page, TABLES)
    assert made.startswith("text\n") and made.endswith("<!-- end -->\nmore\n") and "old" not in made
    assert all(line in made for line in lines)
    assert filled(made, TABLES) == made


def test_an_unknown_table_is_named():
    with pytest.raises(SystemExit, match="no table accuracies of a; it has accuracy"):
        filled("<!-- begin a accuracies -->\n<!-- end -->", TABLES)


@pytest.mark.parametrize(
    ("value", "column", "text"),
    [
        (None, "", "-"),
        (3, "", "3"),
        ("x", "", "x"),
        (0.0, "", "0.0"),
        (0.25, "AUROC", "0.25"),
        (12.34, "", "12.3"),
        (0.25, "gain, points", "0.2"),
        (1.286, "Acc@0.5 %", "1.3"),
        ({"value": -1.25, "low": -3.04, "high": 0.138}, "mIoU, points", "-1.2 [-3.0, 0.1]"),
        (0.0004, "p", "<0.001"),
        (0.0, "mIoU: p", "<0.001"),
        (0.0312, "p (Holm)", "0.031"),
        (1.0, "p (Holm)", "1.000"),
    ],
)
def test_cells(value, column, text):
    assert shown(value, column) == text
