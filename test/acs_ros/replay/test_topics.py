from __future__ import annotations

import pytest

from acs_ros.bags import BagError
from acs_ros.replay.topics import COMPRESSED, DETECTIONS, IMAGE, STRING, Topics, choose_topics

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
