import csv
import io
import math

import pytest
from rich.console import Console

from acs_core.evaluation.table import (
    Cell,
    Column,
    Table,
    TableRow,
    cut,
    interval,
    print_tables,
    to_csv,
    to_json,
    written,
)

TABLE = Table(
    "t",
    "A title",
    (Column("Method"), Column("τ", "tau"), Column("Acc", "percent", "small")),
    (
        TableRow((Cell("[red]x, y"), Cell(None), Cell(61.44, 59.0, 63.0, best=True)), "ours"),
        TableRow((Cell("b"), Cell(0.5), Cell(math.nan, math.nan, math.nan))),
    ),
    ("A note.",),
)


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (61.44, "percent", "61.4"),
        (3.0, "points", "+3.0"),
        (-3.0, "points", "-3.0"),
        (0.1234, "ratio", "0.123"),
        (0.0004, "p", "<0.001"),
        (0.049, "p", "0.049"),
        (2225, "count", "2,225"),
        (None, "percent", "–"),
        (math.nan, "percent", "–"),
        ("word", "count", "word"),
    ],
)
def test_numbers_as_a_reader_sees_them(value, kind, text):
    assert written(Cell(value), Column("c", kind)) == text


def test_intervals():
    assert interval(Cell(1.0, 0.5, 1.5), Column("c", "percent")) == "0.5, 1.5"
    assert interval(Cell(1.0), Column("c", "percent")) == interval(Cell(1.0, math.nan, 1.0), Column("c")) == ""


def printed(width, table=TABLE):
    console = Console(width=width, file=io.StringIO(), record=True)
    print_tables([table], console)
    return console.export_text()


def test_the_terminal_shows_marks_intervals_and_words_as_they_are():
    text = printed(100)
    assert "A title" in text and "A note." in text and "61.4 [59.0, 63.0]*" in text
    assert "[red]x, y" in text and "small" in text and "–" in text


WIDE = Table(
    "w",
    "Wide",
    (Column("question about"), *(Column(f"heading {i}", "percent", "group") for i in range(9)), Column("n", "count")),
    tuple(
        TableRow((Cell(f"row {r} with a name of many words"), *(Cell(11.1 * i + r) for i in range(9)), Cell(10**6 + r)))
        for r in range(2)
    ),
)


@pytest.mark.parametrize(("width", "parts"), [(200, 1), (120, 2), (80, 2), (60, 4), (40, 10)])
def test_no_number_is_cut_and_what_is_left_out_or_split_is_said(width, parts):
    text = printed(width, WIDE)
    numbers = {f"{11.1 * i + r:.1f}" for i in range(9) for r in range(2)} | {"1,000,000", "1,000,001"}
    assert numbers <= set(text.split()) and {"heading", "group", "question"} <= set(text.split())
    assert max(map(len, text.splitlines())) <= width
    assert text.count("row 0") == text.count("question") == parts
    assert ("is printed in" in " ".join(text.split())) == (parts > 1)
    narrow = " ".join(printed(30).split())
    assert "61.4" in narrow and "59.0" not in narrow and "intervals do not fit into 30 characters, and" in narrow


@pytest.mark.parametrize(("width", "left_out"), [(60, ""), (45, ""), (35, "b."), (20, "a, b."), (14, "")])
def test_spare_columns_are_left_out_before_a_table_is_split(width, left_out):
    heads = Column("name"), Column("a", "count", spare=2), Column("b", "count", spare=1), Column("c", "percent")
    numbers = Cell(10**7), Cell(10**7), Cell(61.4, 59.0, 63.0)
    table = Table("t", "t", heads, (TableRow((Cell("row"), *numbers)),), ("In brackets: an interval.",))
    text = " ".join(printed(width, table).split())
    assert ("In brackets" in text) == ("59.0" in text) == (width == 60)
    assert text.endswith(f"are left out: {left_out}") if left_out else "left out: " not in text
    assert ("parts." in text) == (width == 14)


@pytest.mark.parametrize(
    ("iou", "digits", "text"),
    [
        (0.498, 2, "0.49"),
        (0.5 - 1e-12, 3, "0.499"),
        (0.5, 2, "0.50"),
        (0.58, 2, "0.58"),
        (1.0, 2, "1.00"),
        (0.0, 2, "0.00"),
        (1e-9, 2, "0.00"),
    ],
)
def test_an_iou_is_cut(iou, digits, text):
    assert cut(iou, digits) == text and written(Cell(iou), Column("IoU", "iou")) == cut(iou, 3)


def test_csv_has_the_ends_in_columns_of_their_own():
    rows = list(csv.reader(io.StringIO(to_csv(TABLE))))
    assert rows == [
        ["Method", "τ", "small: Acc", "small: Acc low", "small: Acc high"],
        ["[red]x, y", "", "61.44", "59.0", "63.0"],
        ["b", "0.5", "", "", ""],
    ]


def test_json_has_the_same_numbers():
    (table,) = to_json([TABLE])
    assert table["title"] == "A title" and table["notes"] == ["A note."]
    assert table["rows"][0] == {
        "Method": "[red]x, y",
        "τ": None,
        "small: Acc": {"value": 61.44, "low": 59.0, "high": 63.0},
    }
    assert table["rows"][1]["small: Acc"] == {"value": None, "low": None, "high": None}


def test_a_terminal_is_not_steered_by_text_of_the_data():
    table = Table("t", "t", (Column("a"),), (TableRow((Cell("\x1b[2Jred\x07"),)),))
    assert "\x1b" not in printed(60, table) and "[2Jred" in printed(60, table)


@pytest.mark.parametrize(
    ("value", "written_as"),
    [
        ('=HYPERLINK("http://x","y")', '\'=HYPERLINK("http://x","y")'),
        ("+1+2", "'+1+2"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\tkey", "'\tkey"),
        ("\r=1", "\ufffd=1"),
        (" =1", "' =1"),
        ("＝1", "'＝1"),
        ("-inf", "'-inf"),
        ("-0.5", "-0.5"),  # a number, whoever wrote it
        (-0.5, "-0.5"),
        (-3, "-3"),
        (None, ""),
        ("a=b", "a=b"),
        ("a\x1b[31m\u202eb", "a\ufffd[31m\ufffdb"),
    ],
)
def test_no_cell_is_a_formula_and_numbers_stay_numbers(value, written_as):
    table = Table("t", "t", (Column("a"),), (TableRow((Cell(value),)),))
    assert list(csv.reader(io.StringIO(to_csv(table), newline=""))) == [["a"], [written_as]]


def test_no_heading_is_a_formula():
    assert to_csv(Table("t", "t", (Column("x", group="=cmd"),), ())) == "'=cmd: x\n"
