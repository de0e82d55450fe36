from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import serialize_message

from acs_ros.node_client import NodeTrouble
from acs_ros.replay.contents import FrameAt
from acs_ros.replay.player import Pace, Player


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=10).map(sorted), st.floats(0.01, 100))
def test_frames_are_due_as_far_apart_as_they_were_recorded(times, rate):
    now = [7.0]
    pace = Pace(rate, lambda: now[0])
    for at in times:
        left = pace.left(at)
        assert left == pytest.approx(max(0.0, (at - times[0]) / 1e9 / rate - (now[0] - 7.0)), abs=1e-6)
        now[0] += max(0.0, left)


def test_after_a_pause_the_rest_keeps_its_distances():
    now = [0.0]
    pace = Pace(2.0, lambda: now[0])
    pace.left(0)
    now[0] = 100.0
    pace.restart(10**9)
    assert pace.left(10**9) == 0.0 and pace.left(3 * 10**9) == 1.0


def test_recorded_bytes_reach_the_node_and_its_answer_comes_back(rig, image, until):
    rig.ask("key")
    frame = FrameAt(0, 1, 1_000_000_000, "camera_optical")
    with Player("/grounding", "/grounding/image", False, rig.domain) as player:
        player.wait_for_node(30)
        until(lambda: rig.node.count_subscribers("/grounding/candidates") == 2, "the player's subscription")
        sent = player.send(frame, ("key",), bytes(serialize_message(image(stamp=1))))
        until(lambda: player.heard and player.candidates, "the answer")
    (heard,) = player.heard
    assert heard.msg.header.stamp.sec == 1 and heard.at >= sent.at
    assert player.candidates[0].phrase == "key"


@pytest.mark.parametrize(
    ("node", "topic", "said"),
    [
        ("/elsewhere", "/grounding/image", "nobody publishes /elsewhere/detections"),
        ("/grounding", "/other/image", "nobody hears images on /other/image: --publish-to"),
    ],
)
def test_what_is_missing_is_named(rig, until, node, topic, said):
    with Player(node, topic, False, rig.domain) as player:
        until(lambda: rig.node.count_subscribers(f"{node}/detections"), "the discovery")
        until(lambda: player._node.count_publishers("/grounding/detections"), "the discovery")
        with pytest.raises(NodeTrouble, match=said):
            player.wait_for_node(0.1)
