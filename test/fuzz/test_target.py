"""How a case is judged: the oracle itself must be able to fail."""

import pytest

from acs_core.plain_text import shorten
from fuzz import target as target_module
from fuzz.draw import FuzzedData, change_bytes, change_json, nested
from fuzz.target import Broken, Target, judge


def doing(action) -> Target:
    return Target("t", "", action, (KeyError,))


def raising(error: Exception):
    def run(draw):
        raise error

    return run


@pytest.mark.parametrize(
    ("action", "where"),
    [
        (lambda draw: None, None),
        (raising(KeyError("named")), None),
        (raising(KeyError("x" * 5000)), "long message"),
        (raising(KeyError("\ud800")), None),  # a KeyError shows its text quoted
        (raising(ValueError("unnamed")), "ValueError"),
        (raising(MemoryError()), "MemoryError"),
        (raising(RecursionError()), "RecursionError"),
        (raising(Broken("a promise")), "Broken"),
    ],
)
def test_only_named_errors_are_good(action, where):
    defect = judge(doing(action), b"abc")
    assert (defect is None) if where is None else (defect.where.startswith(where) and defect.case == "616263")


def test_an_error_that_cannot_be_written_down_is_a_defect():
    assert judge(Target("t", "", raising(ValueError("\ud800")), (ValueError,)), b"").where.startswith("message")


def test_time_and_memory_are_bounded(monkeypatch):
    monkeypatch.setattr(target_module, "SLOW_S", -1.0)
    assert judge(doing(lambda draw: None), b"").where == "slow"
    monkeypatch.setattr(target_module, "SLOW_S", 60.0)
    monkeypatch.setattr(target_module, "GROWTH_MB", -1)
    assert judge(doing(lambda draw: None), b"").where == "memory"


def test_a_case_decides_alike_everywhere():
    def decisions(case):
        draw = FuzzedData(case)
        return draw.integer(0, 9), draw.text(), draw.raw(9), draw.pick("abc"), shorten(draw.value(), 10**6)

    assert decisions(b"some case") == decisions(b"some case")
    assert decisions(b"some case") != decisions(b"another one")
    assert FuzzedData(b"\x05\x07").integer(0, 255) == 5
    assert all(2 <= FuzzedData(bytes([i])).integer(2, 6) <= 6 for i in range(256))


def test_mutations_change_things():
    data = {"a": [1, 2, {"b": "c"}], "d": 0.5}
    made = {
        shorten(change_json(FuzzedData(bytes([i])), {"a": [1, 2, {"b": "c"}], "d": 0.5}, 2), 10**6) for i in range(60)
    }
    assert len(made) > 40 and str(data) not in made
    assert len({change_bytes(FuzzedData(bytes([i])), b"0123456789", 2) for i in range(60)}) > 40
    assert nested(3) == [[[[]]]]
