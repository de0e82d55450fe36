from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from acs_core.geometry import Box
from acs_ros.bags.bag_player import BagPlayer, main
from acs_ros.bags.bags import DEMO_BAG, BagFrame, BagWriter, read_bag, write_bag
from acs_ros.conversions.images import stamp_ns

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
    until(lambda: rig.node.query_manager.queries == ("thing 2",), "the last phrase")


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


def test_the_command_says_what_is_wrong(domain, monkeypatch, capsys):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    assert main([str(DEMO_BAG), "--wait", "0.1"]) == 1
    assert "nobody listened" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["--hz", "0"])
    assert stopped.value.code == 2


def test_the_command_plays_a_bag_to_a_running_node(rig, tmp_path, monkeypatch, capsys, until):
    write_bag(tmp_path / "bag", FRAMES[:1])
    monkeypatch.setenv("ROS_DOMAIN_ID", str(rig.domain))
    assert main([str(tmp_path / "bag")]) == 0
    assert "played 1 frames" in capsys.readouterr().out
    until(lambda: rig.node.statistics.snapshot().images == 1, "the frame")


class Quiet:
    """Stands in for the topics and the clock of a node."""

    def __init__(self, times=()):
        self.sent: dict[str, list] = {}
        self._times = iter(times)

    def create_publisher(self, kind, topic, qos):
        quiet = SimpleNamespace(publish=self.sent.setdefault(topic, []).append)
        return quiet

    def get_clock(self):
        return SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=next(self._times)))


@pytest.mark.parametrize(("hz", "pauses"), [(None, [0.25, 0.25, 0.25, 0.25, 0.25]), (10.0, [0.1] * 5)])
def test_another_round_waits_as_long_as_between_two_frames(hz, pauses):
    waits = []
    player = BagPlayer(Quiet(), "/image", "", "/truth", waits.append)
    assert player.play(FRAMES, hz) + player.play(FRAMES, hz) == 6
    assert waits == pauses


def test_present_stamps_rise_also_where_the_clock_stands():
    node = Quiet([7, 7, 7, 6, 9, 9])
    player = BagPlayer(node, "/image", "", "/truth", lambda seconds: None)
    player.play(FRAMES, restamp=True)
    player.play(FRAMES, restamp=True)
    assert [stamp_ns(msg.header) for msg in node.sent["/image"]] == [7, 8, 9, 10, 11, 12]
    assert [stamp_ns(msg.header) for msg in node.sent["/truth"]] == [7, 8, 9, 10, 11, 12]


@pytest.mark.parametrize("stamps", [[0, 0, 0], [5, 5, 5], [30, 20, 10]])
def test_a_bag_without_rising_stamps_is_played_at_the_pace_of_its_recording(tmp_path, stamps):
    start = 1_700_000_000_000_000_000
    with BagWriter(tmp_path / "bag") as bag:
        for i, (frame, stamp) in enumerate(zip(FRAMES, stamps, strict=True)):
            odd = replace(frame, stamp_ns=stamp)
            bag.write("/ground_truth", odd.truth_message, start + i * 500_000_000)
            bag.write("/camera/image", odd.image_message, start + i * 500_000_000)
    waits, notes, node = [], [], Quiet()
    player = BagPlayer(node, "/image", "/query", "/truth", waits.append)
    player.play(read_bag(tmp_path / "bag", note=notes.append))
    assert waits == [0.5, 0.5]
    sent = [stamp_ns(msg.header) for msg in node.sent["/image"]]
    assert len(set(sent)) == 3 and sent == [stamp_ns(msg.header) for msg in node.sent["/truth"]]
    assert sent == (stamps if len(set(stamps)) == 3 else [start + i * 500_000_000 for i in range(3)])
    assert [msg.data for msg in node.sent["/query"]] == ["thing 0", "thing 1", "thing 2"]
    assert len(notes) == 1 and ("stamps fall" in notes[0] or "3 of 3 frames have the stamp" in notes[0])


def test_a_bag_that_is_not_there_is_named_before_anybody_listens(tmp_path, monkeypatch, capsys):
    """The demo's player waited for the node to load its model before it looked."""
    monkeypatch.setattr(BagPlayer, "wait_for_listener", lambda self, timeout: pytest.fail("it waits"))
    assert main([str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err == f"bag_player: there is no bag {tmp_path / 'none'}\n"


def test_a_bag_without_frames_is_not_played_for_ever(tmp_path, rig, monkeypatch, capsys):
    with BagWriter(tmp_path / "bag") as bag:
        bag.write("/camera/image", FRAMES[0].image_message, 5)
    monkeypatch.setattr("acs_ros.bags.bag_player.read_bag", lambda *args, **options: iter(()))
    monkeypatch.setenv("ROS_DOMAIN_ID", str(rig.domain))
    assert main([str(tmp_path / "bag"), "--loop"]) == 1
    assert "has no frames" in capsys.readouterr().err
