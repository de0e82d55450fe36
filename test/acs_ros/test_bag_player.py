from __future__ import annotations

import numpy as np
import pytest

from acs_core.geometry import Box
from acs_ros.bag_player import BagPlayer, main
from acs_ros.bags import BagFrame, stamp_ns, write_bag

FRAMES = [
    BagFrame(i * 250_000_000, np.full((4, 4, 3), i, np.uint8), ((f"thing {i}", Box(0, 0, 2, 2)),)) for i in range(3)
]


@pytest.mark.parametrize(("hz", "pauses"), [(None, [0.25, 0.25]), (10.0, [0.1, 0.1])])
def test_frames_and_phrases_reach_the_node_in_order(rig, grounder, until, hz, pauses):
    waits = []

    def pause(seconds):
        waits.append(seconds)
        until(lambda: len(rig.detections) == len(waits), "the answer to the frame before")

    player = BagPlayer(rig.peer, "/grounding/image", "/grounding/query", "/ground_truth", pause)
    until(lambda: player._images.get_subscription_count() and player._queries.get_subscription_count(), "the match")
    rig.ask("something")
    assert player.play(FRAMES, hz) == 3
    until(lambda: len(rig.detections) == 3, "three answers")
    assert waits == pauses
    assert [d.header.stamp.nanosec for d in rig.detections] == [f.stamp_ns for f in FRAMES]
    until(lambda: rig.node.asker.queries == ("thing 2",), "the last phrase")


def test_frames_may_be_stamped_with_the_present_time(rig, until):
    player = BagPlayer(rig.peer, "/grounding/image", "/grounding/query", "/ground_truth", pause=lambda s: None)
    until(lambda: player._images.get_subscription_count() and player._queries.get_subscription_count(), "the match")
    rig.ask("something")
    before = rig.peer.get_clock().now().nanoseconds
    assert player.play(FRAMES[:1], restamp=True) == 1
    until(lambda: rig.detections, "an answer")
    assert stamp_ns(rig.detections[0].header) >= before


def test_without_a_listener_it_gives_up(rig):
    player = BagPlayer(rig.peer, "/nobody", "", "/ground_truth", pause=lambda s: None)
    assert player.wait_for_listener(1.0) is False


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    assert main([str(tmp_path / "none"), "--wait", "0.1"]) == 1
    assert "nobody listened" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["--hz", "0"])
    assert stopped.value.code == 2


def test_the_command_plays_a_bag_to_a_running_node(rig, tmp_path, monkeypatch, capsys, until):
    write_bag(tmp_path / "bag", FRAMES[:1])
    monkeypatch.setenv("ROS_DOMAIN_ID", str(rig.domain))
    assert main([str(tmp_path / "bag")]) == 0
    assert "played 1 frames" in capsys.readouterr().out
    until(lambda: rig.node.ledger.facts().images == 1, "the frame")
