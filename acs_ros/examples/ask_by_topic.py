"""Asks by topic: ``python -m acs_ros.examples.ask_by_topic "key; red mug"``.

Publishes the phrases on ~/query, where they stand until replaced, and prints the next answers on ~/detections.
"""

from __future__ import annotations

if __name__ == "__main__":  # first: a signal may come while the modules below are imported
    from acs_core.entry import run

    run("acs_ros.examples.ask_by_topic", "ask_by_topic")

import argparse
import sys
import time
from collections.abc import Sequence

from rclpy.utilities import remove_ros_args

from acs_core.errors import AcsError
from acs_core.option_types import StrictParser, real_option, whole_option
from acs_core.plain_text import one_line
from acs_core.terminal import print_error
from acs_ros.client.found_objects import FrameObjects
from acs_ros.client.grounding_client import GroundingClient
from acs_ros.dds import name_option


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask and print; the exit code: 1 where no answer came in time."""
    options = make_parser().parse_args(remove_ros_args(sys.argv)[1:] if arguments is None else arguments)
    until, answers = time.monotonic() + options.timeout, 0
    with GroundingClient(options.node, name="ask_by_topic") as client:
        frames = client.detections()  # before asking, or the first answer could be missed
        try:
            client.publish_query(options.phrases, options.timeout)
            while answers < options.answers:
                print_objects(frames.take(until - time.monotonic()))
                answers += 1
        except TimeoutError:
            print_error("ask_by_topic", f"only {answers} answers within {options.timeout:g} s: see /diagnostics")
            return 1
        except AcsError as error:
            print_error("ask_by_topic", error)
            return 1
    return 0


def print_objects(frame: FrameObjects) -> None:
    """Print what was found in a frame."""
    if not frame.objects:
        print("nothing found; ~/candidates and /diagnostics say why")
    for found in frame.objects:
        x, y = found.box.center
        print(f"{one_line(found.phrase)}: score {found.score:.2f}, centre ({x:.0f}, {y:.0f})")


def make_parser() -> argparse.ArgumentParser:
    """What the command line may hold."""
    parser = StrictParser(prog="ask_by_topic", description=__doc__)
    parser.add_argument("phrases", help="what to look for; several are separated by semicolons")
    parser.add_argument(
        "--node", type=name_option(absolute=True), default="/grounding", help="the node's full name (/grounding)"
    )
    parser.add_argument("--answers", type=whole_option(1), default=3, help="how many to wait for (3)")
    seconds = real_option(0, 1e6, above=True)
    parser.add_argument("--timeout", type=seconds, default=30.0, help="longest wait in seconds (30)")
    return parser
