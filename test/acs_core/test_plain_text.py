"""Text of others is shown as signs, on one line, at bounded length."""

import pytest

from acs_core.errors import AcsError, ImageError, SelectorError
from acs_core.plain_text import MAX_MESSAGE, join_some, log_text, nearest, one_line, printable

ESCAPE, C1, OVERRIDE, SURROGATE = "\x1b[31m", "\x9b31m", "\u202e", "\ud800"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a red key", "a red key"),
        ("ключ 鍵 🔑", "ключ 鍵 🔑"),
        (f"a{ESCAPE}b", "a\ufffd[31mb"),
        (f"a{C1}b", "a\ufffd31mb"),
        (f"a{OVERRIDE}b\u2066c", "a\ufffdb\ufffdc"),
        (f"a{SURROGATE}b\x7f\x00", "a\ufffdb\ufffd\ufffd"),
        ("a\nb\u2028c", "a\ufffdb\ufffdc"),
        ("می\u200cخواهم", "می\u200cخواهم"),  # Persian needs its joiner
    ],
)
def test_what_steers_a_terminal_becomes_a_sign(text, shown):
    assert printable(text) == shown and printable(shown) == shown


def test_one_line():
    assert one_line("a\n b\t\tc\u2028d") == "a b c d"
    assert one_line("x" * 10**6) == "x" * (MAX_MESSAGE - 3) + "..."
    assert one_line("x" * 20, 20) == "x" * 20 and one_line("x" * 21, 20) == "x" * 17 + "..."
    assert one_line(" " * 10**6 + "x", 20) == "..."


def test_a_list_of_thousands_is_short():
    assert join_some(["a", "b"]) == "a, b"
    assert join_some(range(3000)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2,990 more"
    assert join_some((n for n in range(3000)), most=2) == "0, 1 and 2,998 more"
    assert join_some(iter(["x" * 10**6]), total=1) == "x" * 97 + "..."


def test_a_name_cannot_pass_for_a_log_line():
    forged = log_text("no model x\n[INFO] [1.0] [grounding]: all is well\r\n\x1b[2Jgone")
    first, *rest = forged.split("\n")
    assert first == "no model x" and all(line.startswith("    ") for line in rest)
    assert "\x1b" not in forged and "\r" not in forged


@pytest.mark.parametrize("kind", [AcsError, ImageError, SelectorError])
def test_every_error_of_ours_is_one_printable_line(kind):
    text = str(kind(f"no {ESCAPE}key{OVERRIDE}\nsecond line" + "x" * 10**6))
    assert text.startswith("no \ufffd[31mkey\ufffd second linexxx") and len(text) == MAX_MESSAGE
    assert text.isprintable()


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("smaples", {}, "samples"),
        ("sample", {"most": 2}, "samples or simple"),
        ("qqq", {}, ""),
        ("simplest", {"likeness": 0.9}, ""),
        ("samples" * 10**6, {}, ""),
    ],
)
def test_the_nearest_names_are_found(name, options, expected):
    assert nearest(name, ("simple", "samples", "seed"), **options) == expected
