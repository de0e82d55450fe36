"""Boxes out of whatever a model writes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acs_core.parsing import parse_response, says_absent

A, B = (1.0, 2.0, 3.0, 4.0), (5.0, 6.0, 7.0, 8.0)

# text -> [(values, label)]
CASES = [
    ('[{"bbox_2d": [1, 2, 3, 4], "label": "key"}]', [(A, "key")]),
    ('```json\n[\n  {"bbox_2d": [1, 2, 3, 4], "label": "key"}\n]\n```', [(A, "key")]),
    ('{"bbox_2d": [1, 2, 3, 4], "label": "key"}', [(A, "key")]),
    ('{"label": "key", "bbox": [1, 2, 3, 4]}', [(A, "key")]),
    ('[{"box": [1,2,3,4], "label": "a"}, {"box": [5,6,7,8], "label": "b"}]', [(A, "a"), (B, "b")]),
    ("[{'bbox_2d': [1, 2, 3, 4], 'label': 'dog\\'s key'}]", [(A, "dog\\'s key")]),
    ('[{"bbox_2d": [1, 2, 3, 4], "label": "a "red" key"}, {"bbox_2d": [5, 6, 7, 8]}]', [(A, 'a "red" key'), (B, "")]),
    ("[1, 2, 3, 4]", [(A, "")]),
    ("The key is at [1, 2, 3, 4].", [(A, "")]),
    ("(1,2),(3,4)", [(A, "")]),
    ("<box>(1, 2), (3, 4)</box>", [(A, "")]),
    ("key[[1, 2, 3, 4]]", [(A, "")]),
    ("[[1, 2, 3, 4], [5, 6, 7, 8]]", [(A, ""), (B, "")]),
    ('{"bbox_2d": [[1,2,3,4],[5,6,7,8]], "label": "key"}', [(A, "key"), (B, "key")]),
    ('"bbox_2d": 1, 2, 3, 4', [(A, "")]),
    ('{"bbox_2d": "[1, 2, 3, 4]"}', [(A, "")]),
    ('{"x1": 1, "y1": 2, "x2": 3, "y2": 4}', [(A, "")]),
    ("x1=1, y1=2, x2=3, y2=4", [(A, "")]),
    ('{"bbox_2d": [1, 2, 3, 4, 0.93], "label": "key"}', [(A, "key")]),
    ('[{"bbox_2d": [1, 2, 3, 4], "label": "key"}, {"bbox_2d": [5, 6', [(A, "key")]),
    ('[{"bbox_2d": [1, 2, 3, 4', [(A, "")]),
    ("[-1.5, +.5, 3e2, 4.]", [((-1.5, 0.5, 300.0, 4.0), "")]),
    ("[1e999, 2, 3, 4]", [((float("inf"), 2.0, 3.0, 4.0), "")]),
    ('{"bbox_2d": [1, 2, 3, 4], "label": "bus 1, 2, 3, 4"}', [(A, "bus 1, 2, 3, 4")]),
    ('{"bbox_2d": [1, 2, 3, 4], "label": "[5, 6, 7, 8]"}', [(A, "[5, 6, 7, 8]")]),
    ('{"bbox_2d": [1, 2, 3, 4], "label": "5" screw"}, {"bbox_2d": [5, 6, 7, 8]}', [(A, '5" screw'), (B, "")]),
    ("Image 640 x 480. 1. [1, 2, 3, 4]", [(A, "")]),
    # a pair is completed by a bracket of exactly two numbers, and by nothing else
    ("(9, 9) [1,2,3,4]", [(A, "")]),
    ("at (9, 9), [[1, 2, 3, 4]]", [(A, "")]),
    ("[9, 9], [1, 2, 3, 4, 0.9]", [(A, "")]),
    ("(9, 9) [1, 2, 3, 4", [(A, "")]),
    ("(9, 9) 9 (1, 2), (3, 4)", [(A, "")]),
    ("(9, 9) (9) (1, 2), (3, 4)", [(A, "")]),
    ("(9, 9) x1: 1, y1: 2, x2: 3, y2: 4", [(A, "")]),
    ('{"point": [9, 9], "bbox_2d": [1, 2, 3, 4]}', [(A, "")]),
    ('{"bbox_2d": [9, 9], "bbox_2d": [1, 2, 3, 4]}', [(A, "")]),
    ("bbox_2d: 9, 9 bbox_2d: 1, 2, 3, 4", [(A, "")]),
    ("(1,2),(3,4),(5,6),(7,8)", [(A, ""), (B, "")]),
    ("[1, 2], [3, 4] and [5, 6, 7, 8]", [(A, ""), (B, "")]),
    ('{"bbox_2d": [[1, 2], [3, 4]], "label": "key"}', [(A, "key")]),
    # quoted numbers
    ('["1","2","3","4"]', [(A, "")]),
    ("{'bbox_2d': ['1', '2', '3', '4'], 'label': '7'}", [(A, "7")]),
    ('{"x1": "1", "y1": "2", "x2": "3", "y2": "4"}', [(A, "")]),
    ('["-1.5", "+.5", "3e2", 4.]', [((-1.5, 0.5, 300.0, 4.0), "")]),
    ('{"1": [1, 2, 3, 4], "2": [5, 6, 7, 8]}', [(A, ""), (B, "")]),
    # no boxes
    ("", []),
    ("[]", []),
    ("[1, 2, 3]", []),
    ("[x1, y1, x2, y2]", []),
    ("there are 1, 2, 3, 4 keys", []),
    ("[NaN, NaN, NaN, NaN]", []),
    ("(1, 2), then (3, 4)", []),
    ("(1, 2) 3, 4", []),
    ("(1, 2), (3, 4, 5)", []),
    ("(1, 2), (3, 4", []),
    ("(1, 2), (3), (4)", []),
    ("(1, 2]), (3, 4)", []),
    ('["1px", "2px", "3px", "4px"]', []),
    ('["1", "2\', "3", "4"]', []),
    ("[1, 2, [3, 4", []),
    ("[v1.2.3.4]", []),
    ('"label": "key"', []),
]


@pytest.mark.parametrize(("text", "expected"), CASES, ids=range(len(CASES)))
def test_boxes_and_labels(text, expected):
    found = parse_response(text)
    assert [(box.values, box.label) for box in found] == expected
    for box in found:
        assert [text[start] in "-+.0123456789" for start in box.starts] == [True] * 4


@pytest.mark.parametrize(
    "text",
    [
        '[{"bbox_2d": [-15, 240, 35, 460], "label": "key"}]',
        "(-15, 240), (35, 460)",
        "(1, 2) [-15, 240, 35, 460]",
        '["-15", "240", "35, 460"] ["-15", "240", 35, "460"]',
    ],
)
def test_starts_point_at_the_numbers(text):
    (box,) = parse_response(text)
    assert [text[i : i + 3].rstrip(",)") for i in box.starts] == ["-15", "240", "35", "460"]


@pytest.mark.parametrize(("text", "closed"), [("[1, 2, 3, 4", False), ("[1, 2, 3, 4 ", True), ("[1, 2, 3, 4]", True)])
def test_a_last_number_may_be_cut(text, closed):
    assert [box.closed for box in parse_response(text)] == [closed]


def test_number_of_boxes_is_bounded():
    assert len(parse_response("[1,2,3,4] " * 500)) == 64
    assert len(parse_response("[1,2,3,4] " * 500, max_boxes=3)) == 3


@pytest.mark.parametrize(
    "unit",
    [
        "[",
        "]",
        '"',
        "'",
        '"1',
        "'1'",
        '"1",',
        "(1,2)",
        "(1,2),(",
        "{",
        '"label":"',
        "[1,2,",
        "1",
        "1e",
        "9" * 400 + " ",
        '"bbox_2d": [',
        "\\",
    ],
)
def test_monotonous_text_is_read_through(unit):
    assert isinstance(parse_response(unit * 20_000, max_boxes=10**6), list)


ABSENT = [
    "[]",
    " [ ] ",
    "```json\n[]\n```",
    "{}",
    "None",
    "null",
    "There is no key in the image.",
    "No keys are visible.",
]
PRESENT = ["", "the key", "[1, 2", "banana banana", '{"bbox_2d": ["a"]}']


@pytest.mark.parametrize(("text", "absent"), [(t, True) for t in ABSENT] + [(t, False) for t in PRESENT])
def test_says_absent(text, absent):
    assert says_absent(text) is absent


PIECES = [
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    '"',
    "'",
    ",",
    " ",
    "\n",
    "bbox_2d",
    '"label": "',
    "key",
    "-",
    ".",
    "e",
    "NaN",
    ":",
]


@settings(max_examples=300)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.integers(-5, 2000).map(str), st.text(max_size=3)), max_size=60))
def test_never_raises(pieces):
    text = "".join(pieces)
    for box in parse_response(text):
        assert len(box.values) == 4
        assert list(box.starts) == sorted(set(box.starts))
        assert all(0 <= start < len(text) for start in box.starts)
    says_absent(text)


NUMBER = st.integers(-50, 1500)


@settings(max_examples=100)
@given(st.lists(st.tuples(NUMBER, NUMBER, NUMBER, NUMBER), max_size=8), st.text(max_size=20))
def test_json_answers_come_back(boxes, label):
    import json

    text = json.dumps([{"bbox_2d": list(b), "label": label} for b in boxes])
    assert [box.values for box in parse_response(text)] == [tuple(map(float, b)) for b in boxes]
