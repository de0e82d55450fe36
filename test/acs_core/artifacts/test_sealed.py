import json
import os
import random

import pytest

from acs_core.artifacts.json_io import Limits
from acs_core.artifacts.sealed import read_sealed, seal, unseal

CONTENT = {"a": [1, 2.5, None, True], "b": {"nested": "ü"}, "c": 0.1}


def test_what_is_sealed_comes_back(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps(seal(CONTENT), indent=1))
    assert unseal(json.dumps(seal(CONTENT)).encode()) == read_sealed(file) == CONTENT


def test_keys_and_tuples_are_those_that_json_has():
    assert unseal(json.dumps(seal({"a": (1, 2), "b": {10: 1, 9: 2}})).encode()) == {"a": [1, 2], "b": {"10": 1, "9": 2}}


def test_what_is_changed_is_noticed_or_is_the_same():
    whole = json.dumps(seal(CONTENT)).encode()
    noticed = 0
    for at in range(len(whole)):
        for bit in range(8):
            changed = whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :]
            try:
                assert unseal(changed) == CONTENT
            except ValueError:
                noticed += 1
    assert noticed > 0.99 * 8 * len(whole)
    for length in range(len(whole)):
        with pytest.raises(ValueError, match="JSON"):
            unseal(whole[:length])


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"{", "valid JSON"),
        (b"[1]", "a list where"),
        (b"\xff\xff", "not JSON text"),
        (b"[" * 100_000, "not JSON text"),
        (b'{"a": 1}', 'no field "sha256"'),
        (b'{"a": 1, "sha256": "00"}', "changed after"),
        (b'{"a": 1, "sha256": [[]]}', "changed after"),
    ],
)
def test_what_is_not_sealed_is_refused(raw, said):
    with pytest.raises(ValueError, match=said):
        unseal(raw)


def test_nothing_is_sealed_twice():
    with pytest.raises(ValueError, match="sha256"):
        seal(seal(CONTENT))


def test_a_file_that_is_none_or_too_large_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="no file"):
        read_sealed(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(random.Random(0).randbytes(101))
    with pytest.raises(ValueError, match="larger than"):
        read_sealed(tmp_path / "large", Limits(100, 100))
    with pytest.raises(OSError, match="No such file"):
        read_sealed(tmp_path / "none")
