"""Nothing that is printed steers the terminal, except what rich itself puts there."""

import io
from pathlib import Path

import pytest
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from acs_core.terminal import PlainConsole, make_console, print_error, print_table

BAD = "\x1b]0;owned\x07 \x9b2J \u202e[red]x[/red] :cat:"
SHOWN = "\ufffd]0;owned"


def printed(*things, terminal=False) -> str:
    out = io.StringIO()
    console = PlainConsole(file=out, force_terminal=terminal, markup=False, emoji=False, highlight=False, width=200)
    for thing in things:
        console.print(thing)
    return out.getvalue()


def table() -> Table:
    made = Table(title=BAD, caption=Text(BAD))
    made.add_column(BAD)
    made.add_row(BAD)
    made.add_row(Text(BAD, "red"))
    return made


@pytest.mark.parametrize("thing", [BAD, Text(BAD), table(), [BAD], {"a": BAD}])
def test_no_control_character_is_printed(thing):
    text = printed(thing)
    assert not any(c in text for c in "\x1b\x07\x9b\u202e")
    if not isinstance(thing, list | dict):  # rich shows those with escapes already
        assert SHOWN in text and "[red]x[/red] :cat:" in text


def test_the_styles_of_a_terminal_stay():
    assert printed(Text("key", "red"), terminal=True) == "\x1b[31mkey\x1b[0m\n"


def test_progress_is_clean_too():
    out = io.StringIO()
    console = PlainConsole(file=out, force_terminal=True, markup=False, width=100)
    with Progress(TextColumn("{task.description}", markup=False), console=console) as progress:
        progress.add_task(f"a{BAD}b", total=1)
    text = out.getvalue()
    assert "\x1b]0" not in text and "\x07" not in text and "\x9b" not in text and SHOWN in text


def test_consoles_of_commands_are_plain(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert make_console(piped_width=160).width == 80
    monkeypatch.delenv("COLUMNS")
    console = make_console(piped_width=30)
    console.print(BAD)
    make_console(stderr=True).print(BAD)
    said = capsys.readouterr()
    assert console.width == 30 and SHOWN in said.out and SHOWN in said.err and "\x1b" not in said.out + said.err


def test_an_error_is_one_printable_line(capsys):
    print_error("acs-x", ValueError(f"no {BAD}\nline 2"))
    text = capsys.readouterr().err
    assert text.startswith("acs-x: no \ufffd]0;owned") and text.count("\n") == 1 and "\x1b" not in text


def test_every_command_uses_them():
    """A console of rich's own, or an error printed as it is, would be a way around."""
    root = Path(__file__).resolve().parents[2]
    around = []
    for room in ("acs_core", "acs_ros", "training"):
        for file in (root / room).rglob("*.py"):
            text = file.read_text()
            if file.name != "terminal.py" and (" Console(" in text or "=Console(" in text or "(Console(" in text):
                around.append(f"{file.name}: Console(")
            if '{error}", file=sys.stderr' in text:
                around.append(f"{file.name}: print of an error")
    assert around == []


@pytest.mark.parametrize(("width", "parts"), [(100, 1), (50, 2), (30, 6)])
def test_a_wide_table_is_printed_in_parts_and_no_cell_is_cut(width, parts):
    made = Table(box=None)
    for i in range(7):
        made.add_column("row" if i == 0 else f"number {i}", justify="left" if i == 0 else "right", no_wrap=True)
    made.add_row("a long name", *(f"{i}.25" for i in range(1, 7)))
    out = io.StringIO()
    print_table(PlainConsole(file=out, width=width, soft_wrap=True), made)
    words = out.getvalue().split()
    assert {f"{i}.25" for i in range(1, 7)} <= set(words) and words.count("long") == words.count("row") == parts
    assert (f"(in {parts} parts:" in out.getvalue()) == (parts > 1)
