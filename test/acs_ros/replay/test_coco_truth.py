from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acs_core.geometry import Box
from acs_ros.bags.frames import FrameAt, show_stamp
from acs_ros.errors import BagError
from acs_ros.replay.coco_truth import LabelledImage, match_coco, parse_stamp, read_coco

LABELS = (("key", Box(1, 1, 3, 3)),)


def frame(number: int, stamp_ns: int) -> FrameAt:
    return FrameAt(number, stamp_ns, stamp_ns, "camera")


def image(name: str, stamp: tuple[int, int] | None = None) -> LabelledImage:
    return LabelledImage(name, stamp or parse_stamp(name.rsplit(".", 1)[0]), None, LABELS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12.000000005", (12_000_000_005, 1)),
        ("left_1700000000.250000000", (1_700_000_000_250_000_000, 1)),
        ("left_1700000000_250000000", (1_700_000_000_250_000_000, 1)),
        ("12.5", (12_500_000_000, 100_000_000)),
        ("1700000000.123457", (1_700_000_000_123_457_000, 1_000)),
        ("000012", None),
        ("key", None),
        ("1.1234567890", None),
        ("", None),
    ],
)
def test_stamps_in_names(text, expected):
    assert parse_stamp(text) == expected


@given(st.lists(st.integers(0, 2**31 * 10**9 - 1), min_size=1, max_size=30, unique=True), st.randoms())
def test_every_frame_finds_the_picture_named_after_it(stamps, random):
    frames = [frame(i, stamp) for i, stamp in enumerate(stamps)]
    images = [
        LabelledImage(f"a_{f.stamp}.png", parse_stamp(f.stamp), None, ((f.stamp, Box(0, 0, 1, 1)),)) for f in frames
    ]
    random.shuffle(images)
    found = match_coco(images, frames)
    assert {key: labels[0][0] for key, labels in found.truth.items()} == {f.key: f.stamp for f in frames}
    assert not found.note


@given(
    st.lists(st.integers(0, 10**12), min_size=1, max_size=20, unique=True),
    st.integers(0, 10**12),
    st.integers(0, 9),
)
def test_a_picture_never_gets_a_frame_further_away_than_its_last_digit(stamps, at, digits):
    text = show_stamp(at)[: -(9 - digits)] if digits < 9 else show_stamp(at)
    frames = [frame(i, stamp) for i, stamp in enumerate(stamps)]
    named = parse_stamp(text)
    if digits == 0:
        assert named is None
        return
    assert named is not None
    try:
        found = match_coco([image("x.png", named)], frames)
    except BagError:
        near = sorted(abs(stamp - named[0]) for stamp in stamps)
        slack = named[1] if named[1] > 1 else 0
        assert near[0] > slack or (len(near) > 1 and near[0] == near[1])
    else:
        ((stamp, _),) = found.truth
        assert abs(stamp - named[0]) <= named[1] and abs(stamp - named[0]) == min(abs(s - named[0]) for s in stamps)


@pytest.mark.parametrize(
    ("by", "names", "expected"),
    [
        ("number", ["frame_000002.png", "cam1_000000.jpg"], {2: "frame_000002.png", 0: "cam1_000000.jpg"}),
        ("order", ["c.png", "a.png", "b.png"], {0: "c.png", 1: "a.png", 2: "b.png"}),
        ("stamp", ["1.0.png", "3.0.png"], {0: "1.0.png", 2: "3.0.png"}),
    ],
)
def test_other_ways_to_match(by, names, expected):
    frames = [frame(i, (i + 1) * 10**9) for i in range(3)]
    images = [LabelledImage(n, parse_stamp(n[:-4]), None, ((n, Box(0, 0, 1, 1)),)) for n in names]
    found = match_coco(images, frames, by)
    assert {frames[n].key: name for n, name in expected.items()} == {k: v[0][0] for k, v in found.truth.items()}


def test_what_did_not_match_is_named():
    frames = [frame(0, 10**9)]
    found = match_coco([image("1.000000000.png"), image("7.000000000.png"), image("x.png")], frames)
    assert found.note == "2 of 3 labelled pictures match none of the 1 frames: 7.000000000.png, x.png"


@pytest.mark.parametrize(
    ("images", "by", "said"),
    [
        (
            [image("x.png")],
            "stamp",
            r"the first is x.png \(no stamp in it\), the bag has stamps from 1.0+ to 2.0+;",
        ),
        ([image("9.0.png")], "stamp", r"\(9.000000000\)"),
        ([image("a.png")], "order", "1 images, 2 frames"),
        ([image("frame_9.png")], "number", "matches a frame by number"),
        ([], "stamp", "0 labelled pictures and 2 frames"),
    ],
)
def test_nothing_in_common_says_what_was_compared(images, by, said):
    with pytest.raises(BagError, match=said):
        match_coco(images, [frame(0, 10**9), frame(1, 2 * 10**9)], by)


def test_a_stamp_between_two_frames_is_nobodys():
    with pytest.raises(BagError):
        match_coco([image("1.5.png")], [frame(0, 1_450_000_000), frame(1, 1_550_000_000)])


def write(folder, **changes):
    content = {
        "images": [
            {"id": 1, "file_name": "a.png", "stamp": "1.5", "width": 40, "height": 30},
            {"id": 2, "file_name": "left_2.000000005.png"},
            {"id": 3, "file_name": "c.png", "stamp": {"sec": 3, "nanosec": 7}},
        ],
        "categories": [{"id": 4, "name": " a  key"}],
        "annotations": [
            {"image_id": 1, "category_id": 4, "bbox": [1, 2, 3, 4]},
            {"image_id": 1, "category_id": 4, "bbox": [1, 2, 3, 4], "iscrowd": 1},
            {"image_id": 2, "category_id": 4, "bbox": [1, 2, 0, 4]},
            {"image_id": 9, "category_id": 4, "bbox": [1, 2, 3, 4]},
        ],
    }
    (folder / "x.json").write_text(json.dumps(content | changes))
    return folder / "x.json"


def test_a_coco_file_is_read(tmp_path):
    a, b, c = read_coco(write(tmp_path))
    assert a == LabelledImage("a.png", (1_500_000_000, 10**8), (40, 30), (("a key", Box(1, 2, 4, 6)),))
    assert b == LabelledImage("left_2.000000005.png", (2_000_000_005, 1), None, ())
    assert c.stamp == (3_000_000_007, 1)


@pytest.mark.parametrize(
    "changes",
    [{"images": 5}, {"categories": [{"id": 4, "name": ""}]}, {"annotations": [{}]}, {"images": [{"id": 1}]}],
)
def test_what_is_no_coco_file_is_named(tmp_path, changes):
    with pytest.raises(BagError, match="is not a COCO instances file"):
        read_coco(write(tmp_path, **changes))


ONE = {"image_id": 1, "category_id": 4, "bbox": [1, 2, 3, 4]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": 5}, '"images" must be a list, got 5'),
        ({"images": [7]}, r'"images"\[0\] must be an object, got 7'),
        ({"images": [{"id": 1}]}, r'"images"\[0\] has no "file_name"'),
        ({"images": [{"id": [], "file_name": "a"}]}, r'"images"\[0\]: "id" must be a number or a text'),
        ({"images": [{"id": 1, "file_name": "a", "stamp": {}}]}, r'"images"\[0\]: "stamp" must have'),
        ({"images": [{"id": 1, "file_name": "a", "width": "x", "height": 3}]}, '"width" and "height" must be numbers'),
        ({"categories": [{"id": 4, "name": 5}]}, r'"categories"\[0\]: "name": the phrase must be text'),
        ({"annotations": [ONE, ONE | {"bbox": [1, 2, 3]}]}, r'"annotations"\[1\]: "bbox" must be four numbers'),
        ({"annotations": [ONE | {"bbox": [10**400, 2, 3, 4]}]}, '"bbox" has a number that is too large'),
        ({"annotations": [ONE | {"category_id": 9}]}, 'no category has the "category_id" 9'),
    ],
)
def test_the_place_and_the_key_that_are_wrong_are_named(tmp_path, changes, said):
    with pytest.raises(BagError, match=said) as caught:
        read_coco(write(tmp_path, **changes))
    message = str(caught.value)
    assert message.startswith(f"--coco: {tmp_path / 'x.json'} is not a COCO instances file: ")
    assert "Error" not in message and "\n" not in message


def test_labels_that_differ_for_one_frame_are_left_out_and_the_same_ones_count_once():
    frames = [frame(0, 10**9), frame(1, 2 * 10**9)]
    other = LabelledImage("b_1.000000000.png", (10**9, 1), None, (("key", Box(5, 5, 9, 9)),))
    same = image("2.000000000.png"), image("c_2.000000000.png")
    found = match_coco([image("1.000000000.png"), other, *same], frames)
    assert found.truth == {frames[1].key: LABELS}
    assert found.note == "1 frames have several labelled pictures that differ, and are left out: b_1.000000000.png"


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_other_json_is_named(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(BagError, match="is not a COCO instances file"):
        read_coco(tmp_path / "x.json")
