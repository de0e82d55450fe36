"""Asks once, by action: ``python -m acs_ros.examples.ask_by_action key --picture photo.png``.

Without a picture the node looks at its camera's next frame. Ctrl-C cancels the goal, and the node stops at once
(:meth:`acs_ros.client.GroundingClient.ground` does that).
"""

from __future__ import annotations

if __name__ == "__main__":  # first: a signal may come while the modules below are imported
    from acs_core.entry import run

    run("acs_ros.examples.ask_by_action", "ask_by_action")

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rclpy.utilities import remove_ros_args

from acs_core.errors import AcsError, os_problem
from acs_core.geometry import Box
from acs_core.option_types import StrictParser, real_option, whole_option
from acs_core.plain_text import one_line, shorten
from acs_core.terminal import print_error
from acs_ros.client.grounding_client import GroundingClient
from acs_ros.dds import name_option


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask and print; the exit code: 1 without an answer."""
    options = make_parser().parse_args(remove_ros_args(sys.argv)[1:] if arguments is None else arguments)
    with GroundingClient(options.node, name="ask_by_action") as client:
        try:
            reply = client.ground(
                options.phrase,
                options.picture,
                timeout=options.timeout,
                region=options.region,
                samples=options.samples,
                deadline=options.deadline,
                min_score=options.min_score,
                multiple=options.multiple,
                on_stage=lambda stage, elapsed: print(f"{elapsed:6.2f} s  {one_line(stage)}"),
            )
        except OSError as error:
            problem = str(error) if isinstance(error, TimeoutError) else os_problem(error, options.picture)
            print_error("ask_by_action", problem)
            return 1
        except AcsError as error:
            print(one_line(str(error)))
            return 1
    for found in reply.objects:
        x, y = found.box.center
        print(f"{options.phrase}: score {found.score:.2f}, centre ({x:.0f}, {y:.0f})")
    if reply.reason:
        print(one_line(reply.reason))
    return 0


def region_option(text: str) -> Box:
    """The region of an option's value: ``X,Y,WIDTH,HEIGHT`` in whole pixels."""
    parts = text.split(",")
    if len(parts) != 4 or not all(part.isascii() and part.isdecimal() and len(part) < 8 for part in parts):
        raise argparse.ArgumentTypeError(f"must be X,Y,WIDTH,HEIGHT in whole pixels, got {shorten(text)}")
    x, y, width, height = map(int, parts)
    return Box(x, y, x + width, y + height)


def make_parser() -> argparse.ArgumentParser:
    """What the command line may hold."""
    parser = StrictParser(prog="ask_by_action", description=__doc__)
    add, seconds = parser.add_argument, real_option(0, 1e6, above=True)
    add("phrase", help="what to look for")
    add("--picture", type=Path, help="a JPEG or PNG file to look at instead of the camera's next frame")
    add("--node", type=name_option(absolute=True), default="/grounding", help="the node's full name (/grounding)")
    add("--region", type=region_option, metavar="X,Y,WIDTH,HEIGHT", help="the part of the image to search (all)")
    add("--samples", type=whole_option(1, 256), default=0, help="responses sampled (the node's parameter)")
    add("--deadline", type=seconds, default=0.0, help="seconds after which sampling ends (none)")
    add("--min-score", type=real_option(0, 1), help="threshold (the node's parameter)")
    add("--multiple", action="store_true", help="every object, not only the best one")
    add("--timeout", type=seconds, default=60.0, help="longest wait in seconds (60)")
    return parser
