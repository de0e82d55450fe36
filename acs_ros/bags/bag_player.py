"""``bag_player``: publishes the frames of a bag, their labels as ground truth, and a query for each frame.

It serves machines without ``ros2 bag``, and nodes that are started separately (launch file, other machine).
"""

from __future__ import annotations

if __name__ == "__main__":  # first: a signal may come while the modules below are imported
    from acs_core.entry import run

    run("acs_ros.bags.bag_player", "bag_player", stopped=0)  # what ros2 launch takes for a good end

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import Image
from std_msgs.msg import String
from vision_msgs.msg import Detection2DArray

from acs_core.option_types import StrictParser, real_option
from acs_core.plain_text import printable
from acs_core.terminal import print_error
from acs_ros.bags.bags import DEMO_BAG, BagFrame, read_bag
from acs_ros.bags.frames import PERIOD_NS
from acs_ros.bags.reader import Bag
from acs_ros.client.background_node import SETTLE_S
from acs_ros.conversions.images import NS
from acs_ros.dds import apply_profile, name_option
from acs_ros.errors import BagError

EXAMPLE = """example:
  ros2 run acs_ros bag_player --image-topic /grounding/image --query-topic /grounding/query --hz 2 --loop

exit codes: 0 played, or stopped with Ctrl-C, 1 failed, 2 wrong usage"""


class BagPlayer:
    """Publishes frames, their ground truth and queries from ``node``.

    ``pause`` is called with seconds to wait: between two frames, and between two calls of :meth:`play`.
    """

    def __init__(
        self,
        node: Node,
        image_topic: str,
        query_topic: str,
        truth_topic: str,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        reliable = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
        self._images = node.create_publisher(Image, image_topic, reliable)
        self._truths = node.create_publisher(Detection2DArray, truth_topic, reliable)
        self._queries = node.create_publisher(String, query_topic, reliable) if query_topic else None
        self._pause, self._clock = pause, node.get_clock()
        self._intervals: list[int] = []  # nanoseconds, of all rounds
        self._played = False
        self._last_stamp = 0  # of the frames that were stamped with the present time

    def wait_for_listener(self, timeout: float) -> bool:
        """Wait until the images have a subscriber. Returns False if none came within ``timeout`` seconds."""
        waited = 0.0
        while self._images.get_subscription_count() == 0 and waited < timeout:
            self._pause(0.05)
            waited += 0.05
        return self._images.get_subscription_count() > 0

    def play(self, frames: Iterable[BagFrame], hz: float | None = None, restamp: bool = False) -> int:
        """Publish all frames at ``hz`` per second, or at the recorded pace (None); returns their number. ``restamp``
        replaces stamps by the present time; those rise. Another round begins the usual interval after the last."""
        count, before = 0, None
        for frame in frames:
            due = frame.stamp_ns if frame.due_ns is None else frame.due_ns
            if before is not None:
                self._intervals.append(max(0, due - before))
                self._pause(1 / hz if hz else self._intervals[-1] / NS)
            elif self._played:
                self._pause(1 / hz if hz else (median(self._intervals) if self._intervals else PERIOD_NS) / NS)
            before, self._played = due, True
            if restamp:
                self._last_stamp = max(self._clock.now().nanoseconds, self._last_stamp + 1)
                frame = replace(frame, stamp_ns=self._last_stamp)
            if self._queries is not None and frame.truth:
                self._queries.publish(String(data=frame.truth[0][0]))
            self._truths.publish(frame.truth_message)
            self._images.publish(frame.image_message)
            count += 1
        return count


def main(arguments: Sequence[str] | None = None) -> int:
    """Play a bag; returns the exit code."""
    argv = remove_ros_args(sys.argv)[1:] if arguments is None else list(arguments)
    options = make_parser().parse_args(argv)
    apply_profile()
    context = Context()
    try:
        Bag(options.bag).close()  # what is wrong with it is said now, and not when a node has loaded its model
        rclpy.init(context=context)
        node = Node("bag_player", context=context)
        player = BagPlayer(node, options.image_topic, options.query_topic, options.truth_topic)
        if not player.wait_for_listener(options.wait):
            raise BagError(f"nobody listened to {options.image_topic} within {options.wait:g} s")
        time.sleep(SETTLE_S)
        played = player.play(read_bag(options.bag, note=_say), options.hz, options.now)
        if not played:
            raise BagError(f"{options.bag} has no frames")
        while options.loop:
            played += player.play(read_bag(options.bag), options.hz, options.now)
        time.sleep(0.5)  # so that the last messages leave before the publishers do
    except BagError as error:
        print_error("bag_player", error)
        return 1
    finally:
        rclpy.try_shutdown(context=context)
    print(printable(f"bag_player: played {played} frames of {options.bag}"))
    return 0


def _say(note: str) -> None:
    print_error("bag_player", f"note: {note}")


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = StrictParser(prog="bag_player", description=__doc__, epilog=EXAMPLE, may_be_empty=("--query-topic",))
    add = parser.add_argument
    add("bag", type=Path, nargs="?", default=DEMO_BAG, help="bag folder (the shipped one)")
    topic = name_option()
    add("--image-topic", type=topic, default="/grounding/image")
    add("--query-topic", type=lambda text: text and topic(text), default="/grounding/query", help="empty: do not ask")
    add("--truth-topic", type=topic, default="/ground_truth")
    add("--hz", type=real_option(0, 1000, above=True), help="frames per second (the bag's own pace)")
    add("--wait", type=real_option(0, 1e6), default=30.0, metavar="S", help="longest wait for a listener, seconds")
    add(
        "--loop",
        action="store_true",
        help="play again and again until Ctrl-C (without --now: the same stamps)",
    )
    add("--now", action="store_true", help="stamp the frames with the present time, not the bag's")
    return parser
