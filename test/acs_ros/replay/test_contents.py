from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String
from vision_msgs.msg import Detection2DArray

from acs_core.geometry import Box
from acs_ros.bags.bags import BagFrame, BagWriter
from acs_ros.bags.frames import FrameAt, peek_header, show_stamp
from acs_ros.bags.reader import Bag
from acs_ros.conversions.detections import detection_to_message
from acs_ros.errors import BagError
from acs_ros.replay import contents
from acs_ros.replay.contents import COMPRESSED, DETECTIONS, IMAGE, STRING, Topics, choose_topics, read_contents

TOPICS = Topics("/camera/image", False, "/ground_truth", "/grounding/query")


@given(
    sec=st.integers(-(2**31), 2**31 - 1),
    nanosec=st.integers(0, 999_999_999),
    frame_id=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30),
    kind=st.sampled_from([Image, CompressedImage, Detection2DArray]),
)
def test_the_header_is_read_without_the_rest(sec, nanosec, frame_id, kind):
    header = Header(frame_id=frame_id)
    header.stamp.sec, header.stamp.nanosec = sec, nanosec
    assert peek_header(bytes(serialize_message(kind(header=header)))) == (sec * 10**9 + nanosec, frame_id)


@given(st.binary(max_size=60))
def test_bytes_that_are_no_message_are_refused_or_give_a_header(data):
    try:
        stamp, frame_id = peek_header(data)
    except ValueError:
        return
    assert isinstance(stamp, int) and "\0" not in frame_id[-1:]


@pytest.mark.parametrize("ns", [0, 5, 1_700_000_000_000_000_005])
def test_stamps_have_nine_digits(ns):
    seconds, digits = show_stamp(ns).split(".")
    assert len(digits) == 9 and int(seconds) * 10**9 + int(digits) == ns


def test_frames_queries_and_truth_are_read(make_bag, frames):
    with Bag(make_bag(frames=frames(2), queries=((1, "key"), (300_000_000, "mug; cup")))) as bag:
        contents = read_contents(bag, TOPICS)
    assert contents.frames == tuple(
        FrameAt(i, 250_000_000 * (i + 1), 250_000_000 * (i + 1), "camera_optical_frame") for i in range(2)
    )
    assert contents.queries == ((1, "key"), (300_000_000, "mug; cup"))
    assert contents.truth == {f.key: (("key", Box(1, 2, 4, 5)),) for f in contents.frames}
    assert contents.unreadable == {}


def test_damaged_messages_are_counted_and_skipped(tmp_path, frames):
    good, other = frames(2)
    with BagWriter(tmp_path / "bag") as bag:
        bag.write("/camera/image", good.image_message, 1)
        bag.write("/ground_truth", good.truth_message, 1)
        bag.write("/grounding/query", String(data="key"), 1)
        raw = {c.topic: c for c in bag._writer.connections}
        bag._writer.write(raw["/camera/image"], 2, b"\x00\x01\x00\x00\xff")
        bag._writer.write(raw["/ground_truth"], 2, b"\x00\x01\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff")
        bag.write("/camera/image", other.image_message, 3)
    with Bag(tmp_path / "bag") as opened:
        contents = read_contents(opened, TOPICS)
    assert [f.number for f in contents.frames] == [0, 2]  # the damaged one keeps its place
    assert contents.unreadable == {"/camera/image": 1, "/ground_truth": 1}
    assert len(contents.truth) == 1 and len(contents.queries) == 1


def test_labels_without_a_name_or_an_area_name_nothing(tmp_path):
    frame = BagFrame(1, None, ())  # type: ignore[arg-type]
    labels = [
        ("", Box(0, 0, 2, 2)),
        ("key", Box(1, 1, 1, 5)),
        ("key", Box(0, 0, float("nan"), 2)),
        (" a  key", Box(0, 0, 2, 2)),
    ]
    found = [detection_to_message(frame.header, phrase, box, 1.0) for phrase, box in labels]
    with BagWriter(tmp_path / "bag") as bag:
        bag.write("/ground_truth", Detection2DArray(header=frame.header, detections=found), 1)
    with Bag(tmp_path / "bag") as opened:
        contents = read_contents(opened, TOPICS)
    assert list(contents.truth.values()) == [(("a key", Box(0, 0, 2, 2)),)]


def test_what_is_held_of_a_bag_is_bounded(make_bag, monkeypatch):
    bag = make_bag(queries=((1, "key"), (2, "k" * 300_000)))
    topics = Topics("/camera/image", False, "/ground_truth", "/grounding/query")
    with Bag(bag) as opened:
        found = read_contents(opened, topics)
    assert found.queries == ((1, "key"),) and found.unreadable == {"/grounding/query": 1}
    for limit in ("MAX_FRAMES", "MAX_LABELS"):
        with monkeypatch.context() as patched, Bag(bag) as opened:
            patched.setattr(contents, limit, 3)
            with pytest.raises(BagError, match="split it into several bags"):
                read_contents(opened, topics)


ALL = {
    "/a": IMAGE,
    "/b/compressed": COMPRESSED,
    "/truth": DETECTIONS,
    "/old/detections": DETECTIONS,
    "/grounding/query": STRING,
    "/robot_description": STRING,
    "/odom": "nav_msgs/msg/Odometry",
}


@pytest.mark.parametrize(
    ("has", "named", "expected"),
    [
        (["/a"], {}, Topics("/a", False)),
        (["/b/compressed", "/truth"], {}, Topics("/b/compressed", True, "/truth")),
        (["/a", "/odom", "/robot_description"], {}, Topics("/a", False)),
        (["/a", "/grounding/query", "/robot_description"], {}, Topics("/a", False, None, "/grounding/query")),
        (
            ["/a", "/robot_description"],
            {"query": "/robot_description"},
            Topics("/a", False, None, "/robot_description"),
        ),
        (["/a", "/truth", "/grounding/query"], {"truth": "", "query": ""}, Topics("/a", False)),
        (list(ALL), {"image": "/a", "truth": "/truth"}, Topics("/a", False, "/truth", "/grounding/query")),
    ],
)
def test_topics_are_found_by_type_or_by_name(has, named, expected):
    assert choose_topics({topic: ALL[topic] for topic in has}, **named) == expected


@pytest.mark.parametrize(
    ("has", "named", "said"),
    [
        ([], {}, "the bag has no topics"),
        (["/odom"], {}, r"no images.* it has /odom \(nav_msgs/Odometry\)"),
        (["/a", "/b/compressed"], {}, r"--image-topic: /a \(sensor_msgs/Image\), /b/compressed \(sensor_msgs/Comp"),
        (["/a", "/truth", "/old/detections"], {}, "--truth: /old/detections .*, /truth"),
        (["/a", "/odom"], {"image": "/odom"}, "/odom is nav_msgs/Odometry, not sensor_msgs/Image or .*; .* are /a"),
        (["/a"], {"image": "/c"}, "has no topic /c; topics of a fitting type are /a"),
        (["/a"], {"truth": "/t"}, r"--truth: the bag has no topic /t; the bag has /a \(sensor_msgs/Image\)"),
        (["/a"], {"query": "/a"}, "--query-topic /a is sensor_msgs/Image, not std_msgs/String"),
    ],
)
def test_what_does_not_fit_is_listed(has, named, said):
    with pytest.raises(BagError, match=said):
        choose_topics({topic: ALL[topic] for topic in has}, **named)


def test_topics_in_use_are_named():
    assert Topics("/a", False, None, "/q").named == ("/a", "/q")
