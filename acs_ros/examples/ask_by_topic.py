"""Asks by topic: ``python -m acs_ros.examples.ask_by_topic "key; red mug"``.

Publishes the phrases on ~/query, where they stand until replaced, and prints the next answers on ~/detections.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import rclpy
from rclpy.node import Node
from rclpy.utilities import remove_ros_args
from std_msgs.msg import String
from vision_msgs.msg import Detection2DArray


class TopicClient(Node):
    """Says what it looks for, and hears what was found."""

    def __init__(self, grounding: str) -> None:
        super().__init__("ask_by_topic")
        self.answers = 0
        self._query = self.create_publisher(String, f"{grounding}/query", 1)
        self.create_subscription(Detection2DArray, f"{grounding}/detections", self._on_detections, 10)

    @property
    def connected(self) -> bool:
        """Whether the node hears us; before that a message would be lost."""
        return self._query.get_subscription_count() > 0

    def ask(self, phrases: str) -> None:
        """Ask for one phrase, or several separated by semicolons."""
        self._query.publish(String(data=phrases))

    def _on_detections(self, msg: Detection2DArray) -> None:
        self.answers += 1
        if not msg.detections:
            print("nothing found; ~/candidates and /diagnostics say why")
        for found in msg.detections:
            what = found.results[0].hypothesis
            at = found.bbox.center.position
            print(f"{what.class_id}: score {what.score:.2f}, centre ({at.x:.0f}, {at.y:.0f})")


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask and print; the exit code: 1 where no answer came in time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phrases", help="what to look for; several are separated by semicolons")
    parser.add_argument("--node", default="/grounding", help="the node's full name (/grounding)")
    parser.add_argument("--answers", type=int, default=3, help="how many to wait for (3)")
    parser.add_argument("--timeout", type=float, default=30.0, help="longest wait in seconds (30)")
    options = parser.parse_args(remove_ros_args(sys.argv)[1:] if arguments is None else arguments)
    with rclpy.init():
        client = TopicClient(options.node)
        until = client.get_clock().now().nanoseconds + options.timeout * 1e9
        asked = False
        while client.answers < options.answers and client.get_clock().now().nanoseconds < until:
            if not asked and client.connected:
                client.ask(options.phrases)
                asked = True
            rclpy.spin_once(client, timeout_sec=0.1)
        answers = client.answers
        client.destroy_node()
    if answers < options.answers:
        print(f"only {answers} answers within {options.timeout:g} s: see /diagnostics", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
