"""What is quoted from a foreign file stays short."""

import json
import os

import pytest
from bounded_parts import bounded

from acs_core.artifacts.json_io import Limits, parse_json, read_json, read_object
from acs_core.plain_text import shorten


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("key", "'key'"),
        (7, "7"),
        ("k" * 10**7, "'" + "k" * 56 + "..."),
        (list(range(1000)), "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16..."),
        ("\ud800\n\x1b[31m", r"'\ud800\n\x1b[31m'"),
    ],
)
def test_shortened(value, shown):
    assert shorten(value) == shown
    shorten(value).encode()


def test_nesting_that_can_be_read_but_not_shown():
    deep = []
    for _ in range(5000):
        deep = [deep]
    assert shorten(deep) == "a list, nested too deeply"
    assert shorten({"a": deep}) == "a dict, nested too deeply"


@pytest.mark.parametrize(
    "text",
    [
        '{"x": [0], "y": 1, "x": [1]}',
        '{"a": {"min_score": 0.1, "min_score": 0.9}}',
        '[{"deep": [{"x": 1, "x": 1}]}]',
        '{"x": 1, "\\u0078": 2}',
    ],
)
def test_a_key_that_stands_twice_is_refused(text):
    with pytest.raises(ValueError, match=r"^the key '(x|min_score)' stands twice in one object: remove one of the two"):
        parse_json(text.encode())
    with pytest.raises(ValueError, match="stands twice"):
        parse_json(text.encode(), nan=True)


def test_a_key_of_megabytes_that_stands_twice_is_not_repeated():
    with pytest.raises(ValueError, match="stands twice") as caught:
        parse_json(b'{"%s": 1, "%s": 2}' % (b"k" * 10**6, b"k" * 10**6))
    assert len(str(caught.value)) < 300


def test_the_same_key_in_two_objects_is_no_matter():
    assert parse_json(b'{"a": {"x": 1}, "b": {"x": 2}}') == {"a": {"x": 1}, "b": {"x": 2}}


def test_a_schema_version_of_megabytes_is_not_repeated(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"schema_version": "1" * 10**6}))
    with pytest.raises(ValueError, match="schema_version") as caught:
        read_object(tmp_path / "a.json", 1)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("piece", ["[],", "{},", '{"a":1},'])
def test_values_are_counted_before_they_are_made(piece):
    text = "[" + piece * 300_000 + "0]"
    with pytest.raises(ValueError, match="more than 500,000 values"):
        parse_json(text.encode())


def test_limits_are_exact():
    limits = Limits(20, 4)
    assert parse_json(b"[1, 2, 3, 4]", limits) == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="more than 4 values"):
        parse_json(b"[1, 2, 3, 4, 5]", limits)
    with pytest.raises(ValueError, match="larger than"):
        parse_json(b"[1" + b" " * 18 + b"]", limits)


def test_values_that_json_lacks_are_read_only_where_they_are_wanted():
    with pytest.raises(ValueError, match="NaN"):
        parse_json(b"[NaN]")
    assert len(parse_json(b"[NaN]", nan=True)) == 1


@pytest.mark.parametrize("piece", [b"[],", b"{},", b'"",', b'{"":{}},', b"1.5,"])
def test_a_file_at_the_limit_costs_a_few_times_its_size(tmp_path, piece):
    content = b"[" + piece * (7 * 2**20 // len(piece)) + b"0]"
    (tmp_path / "a.json").write_bytes(content)
    setup = "from pathlib import Path\nfrom acs_core.artifacts.json_io import read_json"
    found = bounded(setup, "len(read_json(Path(argument)))", tmp_path / "a.json")
    assert found.grown_mb < 120, found


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(ValueError, match="it is no file"):
        read_json(tmp_path / "a.json")
