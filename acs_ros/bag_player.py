"""``bag_player``: plays the frames of a bag on a topic, at the bag's pace or another, and asks for what they show.

For machines without ``ros2 bag``, and to watch a node that runs elsewhere (launch file, another machine).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import Image
from std_msgs.msg import String
from vision_msgs.msg import Detection2DArray

from acs_ros.bags import DEMO_BAG, BagError, BagFrame, read_bag
from acs_ros.dds import apply_profile
from acs_ros.peer import SETTLE_S

EXAMPLE = """example:
  ros2 run acs_ros bag_player --image-topic /grounding/image --query-topic /grounding/query --hz 2 --loop

exit codes: 0 played, 1 failed, 2 wrong usage, 130 stopped with Ctrl-C"""


class BagPlayer:
    """Publishes frames, their truth and the phrases they can be asked for, as ``node``.

    ``pause`` gets seconds to wait; a test may bring its own.
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

    def wait_for_listener(self, timeout: float) -> bool:
        """Wait until somebody listens to the images; False when nobody came within ``timeout`` seconds."""
        waited = 0.0
        while self._images.get_subscription_count() == 0 and waited < timeout:
            self._pause(0.05)
            waited += 0.05
        return self._images.get_subscription_count() > 0

    def play(self, frames: Iterable[BagFrame], hz: float | None = None, restamp: bool = False) -> int:
        """Publish all frames, ``hz`` a second, or None for the bag's own pace; how many there were. ``restamp`` gives
        them the present time for their stamp."""
        count, before = 0, None
        for frame in frames:
            if before is not None:
                self._pause(1 / hz if hz else max(0.0, (frame.stamp_ns - before) / 1e9))
            before = frame.stamp_ns
            if restamp:
                frame = replace(frame, stamp_ns=self._clock.now().nanoseconds)
            if self._queries is not None and frame.truth:
                self._queries.publish(String(data=frame.truth[0][0]))
            self._truths.publish(frame.truth_message)
            self._images.publish(frame.image_message)
            count += 1
        return count


def main(arguments: Sequence[str] | None = None) -> int:
    """Play a bag; the exit code."""
    argv = remove_ros_args(sys.argv)[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(argv)
    apply_profile()
    context = Context()
    try:
        rclpy.init(context=context)
        node = Node("bag_player", context=context)
        player = BagPlayer(node, options.image_topic, options.query_topic, options.truth_topic)
        if not player.wait_for_listener(options.wait):
            raise BagError(f"nobody listened to {options.image_topic} within {options.wait:g} s")
        time.sleep(SETTLE_S)
        played = player.play(read_bag(options.bag), options.hz, options.now)
        while options.loop:
            played += player.play(read_bag(options.bag), options.hz, options.now)
        time.sleep(0.5)  # so that the last messages leave before the publishers do
    except BagError as error:
        print(f"bag_player: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bag_player: stopped", file=sys.stderr)
        return 130
    finally:
        rclpy.try_shutdown(context=context)
    print(f"bag_player: played {played} frames of {options.bag}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bag_player", description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bag", type=Path, nargs="?", default=DEMO_BAG, help="bag folder (the shipped one)")
    parser.add_argument("--image-topic", default="/grounding/image")
    parser.add_argument("--query-topic", default="/grounding/query", help="empty: do not ask")
    parser.add_argument("--truth-topic", default="/ground_truth")
    parser.add_argument("--hz", type=_rate, help="frames per second (the bag's own pace)")
    parser.add_argument("--wait", type=float, default=30.0, metavar="S", help="longest wait for a listener, seconds")
    parser.add_argument("--loop", action="store_true", help="play again and again until Ctrl-C")
    parser.add_argument("--now", action="store_true", help="stamp the frames with the present time, not the bag's")
    return parser


def _rate(text: str) -> float:
    value = float(text)
    if not 0 < value < 1000:
        raise argparse.ArgumentTypeError(f"must be above 0 and below 1000, got {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())
