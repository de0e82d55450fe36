"""Boxes are read out of whatever a model writes."""

import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acs_core.generation.candidates import ParsedBox, parse_response, says_absent, without_examples
from acs_core.lvlm.prompt import localization_prompt
from fuzz.answers import IN_WORDS

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
    ("key[[1, 2, 3, 4]]", [(A, "key")]),
    ("[[1, 2, 3, 4], [5, 6, 7, 8]]", [(A, ""), (B, "")]),
    ('{"bbox_2d": [[1,2,3,4],[5,6,7,8]], "label": "key"}', [(A, "key"), (B, "key")]),
    ('"bbox_2d": 1, 2, 3, 4', [(A, "")]),
    ('{"bbox_2d": "[1, 2, 3, 4]"}', [(A, "")]),
    ('{"x1": 1, "y1": 2, "x2": 3, "y2": 4}', [(A, "")]),
    ("x1=1, y1=2, x2=3, y2=4", [(A, "")]),
    # named coordinates, in any order
    ('{"ymin": 2, "xmin": 1, "ymax": 4, "xmax": 3}', [(A, "")]),
    ('{"xmin": 1, "xmax": 3, "ymin": 2, "ymax": 4, "label": "key"}', [(A, "key")]),
    ("y_min=2, x_min=1, y_max=4, x_max=3; y1: 6, x1: 5, y2: 8, x2: 7", [(A, ""), (B, "")]),
    ('{"y2": "4", "x2": "3", "y1": "2", "x1": "1"}', [(A, "")]),
    ('{"ymin": 2, "x1": 1, "ymax": 4, "x2": 3}', [(A, "")]),
    ("x1=1, 2, x2=3, 4", [(A, "")]),
    # one of five numbers is a confidence
    ('{"bbox_2d": [1, 2, 3, 4, 0.93], "label": "key"}', [(A, "key")]),
    ("[0.98, 1, 2, 3, 4]", [(A, "")]),
    ("[[0.98, 1, 2, 3, 4], [.7, 5, 6, 7, 8]]", [(A, ""), (B, "")]),
    ("[0.98, 1, 2, 3, 4, 5]", []),
    ("[0.5, 2, 3, 4, 0.9]", [((0.5, 2.0, 3.0, 4.0), "")]),
    ("[0.1, 0.2, 0.3, 0.4, 95]", [((0.1, 0.2, 0.3, 0.4), "")]),
    ("[1, 2, 3, 4, 95]", [(A, "")]),
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
    # corners by name, with words between them
    ("top-left (1, 2) and bottom-right (3, 4)", [(A, "")]),
    ("The top-left corner is at (1, 2) and the bottom-right corner at [3, 4].", [(A, "")]),
    ("Upper left: (1,2); Lower right: (3,4)", [(A, "")]),
    ("左上角坐标为（１，２），右下角坐标为（３，４）", [(A, "")]),
    ("top left (x1, y1): (1, 2), bottom right (x2, y2): (3, 4)", [(A, "")]),
    ("top-left (1, 2), bottom-right (3, 4); top-left (5, 6), bottom-right (7, 8)", [(A, ""), (B, "")]),
    ("top-left (1, 2), (3, 4)", [(A, "")]),
    # full-width signs
    ("［１，２，３，４］", [(A, "")]),
    ("【1，2，3，4】", [(A, "")]),
    ("｛“bbox_2d”：［1，2，3，4］，“label”：“钥匙”｝", [(A, "钥匙")]),
    ("（1、2）、（3、4）", [(A, "")]),
    ("[－１．５, 2, 3, 4]", [((-1.5, 2.0, 3.0, 4.0), "")]),
    # labels before brackets and in tags
    ("car[[1, 2, 3, 4]]\ntruck[[5, 6, 7, 8]]", [(A, "car"), (B, "truck")]),
    ("fire truck(1,2),(3,4)", [(A, "fire truck")]),
    ("key [1, 2, 3, 4]", [(A, "")]),
    ("The key is at(1, 2), (3, 4)", [(A, "")]),
    ("bounding box[1, 2, 3, 4]", [(A, "")]),
    ("钥匙的坐标为[1, 2, 3, 4]", [(A, "")]),
    ("It is " + "very " * 20 + "long[1, 2, 3, 4]", [(A, "")]),
    ("钥匙(1,2),(3,4)", [(A, "钥匙")]),
    ("<ref>a key</ref><box>[[1, 2, 3, 4]]</box>", [(A, "a key")]),
    ("<box>1 2 3 4</box><box>5 6 7 8</box>", [(A, ""), (B, "")]),
    # numbers in one string, and nothing but numbers
    ('{"bbox_2d": "1, 2, 3, 4", "label": "key"}', [(A, "key")]),
    ('<p data-bbox="1 2 3 4">key</p>', [(A, "")]),
    ("1, 2, 3, 4", [(A, "")]),
    (" 1 2 3 4\n", [(A, "")]),
    # other things than boxes before a box
    ('{"point_2d": [9, 9], "bbox_2d": [1, 2, 3, 4]}', [(A, "")]),
    ('[{"bbox_3d": [1, 2, 3, 4, 5, 6, 7, 8, 9]}, {"bbox_2d": [5, 6, 7, 8]}]', [(B, "")]),
    ('<points x1="9" y1="9" x2="9" y2="9" alt="key">key</points> [1, 2, 3, 4]', [(A, "")]),
    # no boxes
    ("", []),
    ("[1, 2, 3, 4, 5, 6]", []),
    ('{"bbox_3d": [1, 2, 3, 4', []),
    ('{"points": [[1, 2], [3, 4]]}', []),
    ('{"polygon": [[1, 2, 3, 4]]}', []),
    ('<points x1="1" y1="2" x2="3" y2="4" alt="keys">keys</points>', []),
    ('<points x1="1" y1="2" x2="3" y2="4', []),
    ('<point x="1" y="2" alt="key">key</point><point x="3" y="4" alt="key">key</point>', []),
    ("bottom-right (3, 4) and top-left (1, 2)", []),
    ("top-left (1, 2), then nothing. " + "So it goes on. " * 9 + "bottom-right (3, 4)", []),
    ("1, 2, 3, 4 keys", []),
    ("1, 2, 3, 4, 5", []),
    ("1.2.3, 2, 3, 4", []),
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
        assert all(unicodedata.normalize("NFKC", text[start]) in "-+.0123456789" for start in box.starts)


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


def test_the_number_of_boxes_read_is_bounded():
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
        "top-left (1,2) ",
        "<points ",
        "<ref>",
        "car",
        "'bbox_3d': [",
        '"1 ',
        "\\",
    ],
)
def test_monotonous_text_is_read_through(unit):
    assert isinstance(parse_response(unit * 20_000, max_boxes=10**6), list)


ABSENT = [
    "There are none.",
    "There is none.",
    "The image does not contain any keys.",
    "I can’t see a key in this picture.",
    "The picture shows no key.",
    "图中没有钥匙。",
    "图片中没有找到钥匙",
    "未检测到目标。",
    "在图像中未发现钥匙",
    "画面中看不到钥匙",
    "钥匙不存在",
    "没有",
    "圖片中沒有鑰匙",
    "抱歉，没有任何钥匙在图中。",
    "【】",
    "[]",
    " [ ] ",
    "```json\n[]\n```",
    "{}",
    "None",
    "null",
    "There is no key in the image.",
    "No keys are visible.",
]
PRESENT = [
    "I'm sorry, but I can't assist with that.",
    "不知道",
    "图中有一把钥匙",
    "钥匙在桌子上，没错。",
    "",
    "the key",
    "[1, 2",
    "banana banana",
    '{"bbox_2d": ["a"]}',
]


@pytest.mark.parametrize(("text", "absent"), [(t, True) for t in ABSENT] + [(t, False) for t in PRESENT])
def test_says_absent(text, absent):
    assert says_absent(text) is absent


PIECES = [
    *IN_WORDS,
    '"bbox_3d":',
    '"point_2d":',
    "0.5",
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
    text = json.dumps([{"bbox_2d": list(b), "label": label} for b in boxes])
    assert [box.values for box in parse_response(text)] == [tuple(map(float, b)) for b in boxes]


@pytest.mark.parametrize(
    ("values", "decimal", "expected"),
    [
        ((0.28, 0.5, 0.52, 0.7), True, (112.0, 100.0, 208.0, 140.0)),
        ((0.0, 0.0, 1.0, 1.0), True, (0.0, 0.0, 400.0, 200.0)),
        ((0.0, 0.0, 1.0, 1.0), False, (0.0, 0.0, 1.0, 1.0)),
        ((0.5, 0.5, 1.5, 1.0), True, (0.5, 0.5, 1.5, 1.0)),
        ((10.5, 20.25, 30.0, 40.0), True, (10.5, 20.25, 30.0, 40.0)),
    ],
)
def test_shares_of_the_picture_are_scaled(values, decimal, expected):
    box = ParsedBox(values, (0, 1, 2, 3), decimal=decimal)
    assert box.in_frame((400.0, 200.0)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "decimal"),
    [("[0, 0, 1, 1]", False), ("[0, 0, 1., 1]", True), ("[0.0, 0.0, 1.0, 1.0]", True), ("[0, 0, 1e0, 1]", False)],
)
def test_a_decimal_point_is_noted(text, decimal):
    assert [box.decimal for box in parse_response(text)] == [decimal]


def test_the_examples_of_the_prompt_are_no_answer():
    echo = parse_response(localization_prompt("key"))
    assert [box.values for box in echo] == [(200, 150, 280, 220), (350, 180, 420, 270)]
    assert without_examples(echo) == []
    one, other = parse_response("[200, 150, 280, 220], [1, 2, 3, 4]")
    assert without_examples([one, other]) == [one, other]  # one of them may be where the object is
    assert [box.values for box in without_examples([*echo, other])] == [A]


@settings(max_examples=100)
@given(st.tuples(*[st.floats(0, 1)] * 4), st.floats(1, 5000), st.floats(1, 5000))
def test_shares_stay_in_the_frame(values, width, height):
    x1, y1, x2, y2 = ParsedBox(values, (0, 1, 2, 3), decimal=True).in_frame((width, height))
    assert min(x1, x2) >= 0 and max(x1, x2) <= width and min(y1, y2) >= 0 and max(y1, y2) <= height


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ('{"ymin": 50, "xmin": 100, "ymax": 90, "xmax": 300}', ("100", "50", "300", "90")),
        ("[0.98, 10, 20, 30, 40]", ("10", "20", "30", "40")),
    ],
)
def test_each_coordinate_is_found_where_it_was_written(text, written):
    (box,) = parse_response(text)
    assert box.values == tuple(map(float, written))
    assert all(text.startswith(number, start) for number, start in zip(written, box.starts, strict=True))
