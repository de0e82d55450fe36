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
    ("value", "text"), [(None, "-"), (3, "3"), ("x", "x"), (0.0, "0.0"), (0.25, "0.25"), (12.34, "12.3")]
)
def test_cells(value, text):
    assert shown(value) == text
