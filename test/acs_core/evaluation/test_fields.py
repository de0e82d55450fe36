import pytest

from acs_core.evaluation.fields import exactly, finite, listed, numbers, objects, optional, text


def test_what_is_right_comes_through():
    assert numbers([1, 2.5], "x") == [1.0, 2.5] and exactly(2, [1, 2], "x") == [1, 2]
    assert optional(None, "x") is None and optional(3, "x") == 3.0
    data = {"a": "word", "b": [1], "c": [{}]}
    assert text(data, "a") == "word" and listed(data, "b") == [1] and objects(data, "c") == [{}]
    assert listed(data, "z", default=[7]) == [7] and listed(data, "b", count=1) == [1]


@pytest.mark.parametrize("value", [True, "1", None, float("nan"), float("inf"), 10**400, [1]])
def test_what_is_no_number(value):
    with pytest.raises(ValueError, match="here must hold finite numbers"):
        finite(value, "here")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: numbers(7, "here"), "here must be a list of numbers, got 7"),
        (lambda: exactly(2, [1], "here"), "here must be 2 numbers, got 1"),
        (lambda: text({}, "a", "here: "), 'here: field "a" must be a string, got None'),
        (lambda: listed({"a": 1}, "a"), 'field "a" must be a list, got 1'),
        (lambda: listed({"a": []}, "a", count=2), 'field "a" must have 2 entries, one for each question, got 0'),
        (lambda: objects({"a": [{}, 5]}, "a", "here: "), r"here: a\[1\] must be an object, got 5"),
    ],
)
def test_what_is_wrong_is_named(wrong, told):
    with pytest.raises(ValueError, match=told):
        wrong()
