"""What is quoted from a foreign file stays short."""

import json

import pytest

from acs_core.jsonfile import read_object, shorten


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


def test_a_schema_version_of_megabytes_is_not_repeated(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"schema_version": "1" * 10**6}))
    with pytest.raises(ValueError, match="schema_version") as caught:
        read_object(tmp_path / "a.json", 1)
    assert len(str(caught.value)) < 300
