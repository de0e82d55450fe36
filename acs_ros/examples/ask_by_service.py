"""Sets the standing queries: ``python -m acs_ros.examples.ask_by_service key "red mug"``.

Without phrases it lists those in force; --clear, --pause and --resume do what they say.
"""

from __future__ import annotations

if __name__ == "__main__":  # first: a signal may come while the modules below are imported
    from acs_core.entry import run

    run("acs_ros.examples.ask_by_service", "ask_by_service")

import argparse
import sys
from collections.abc import Sequence

from rclpy.utilities import remove_ros_args

from acs_core.errors import AcsError
from acs_core.option_types import StrictParser, real_option
from acs_core.plain_text import one_line
from acs_core.terminal import print_error
from acs_ros.client.grounding_client import GroundingClient
from acs_ros.dds import name_option


def main(arguments: Sequence[str] | None = None) -> int:
    """Set, list, clear or pause; the exit code: 1 where that was refused."""
    options = make_parser().parse_args(remove_ros_args(sys.argv)[1:] if arguments is None else arguments)
    with GroundingClient(options.node, name="ask_by_service") as client:
        try:
            print(one_line(answer_to(options, client)))
        except AcsError as error:
            print(one_line(str(error)))
            return 1
        except TimeoutError as error:
            print_error("ask_by_service", error)
            return 1
    return 0


def answer_to(options: argparse.Namespace, client: GroundingClient) -> str:
    """Make the call that the command line asks for. Returns the line to print.

    Raises:
        PhraseError: a phrase was refused.
        NodeTrouble: the node refused the call, or ROS was shut down.
        TimeoutError: the node is not there, or does not answer.
    """
    if options.clear:
        return client.clear_queries(options.timeout)
    if options.pause:
        return client.pause(options.timeout)
    if options.resume:
        return client.resume(options.timeout)
    if options.phrases:
        return f"asking for {', '.join(map(repr, client.set_queries(options.phrases, options.timeout)))}"
    status = client.status(options.timeout)
    paused = ", paused" if status.paused else ""
    return f"{status.mode}{paused}: {', '.join(status.phrases) or 'nothing is asked'}"


def make_parser() -> argparse.ArgumentParser:
    """What the command line may hold."""
    parser = StrictParser(prog="ask_by_service", description=__doc__)
    parser.add_argument("phrases", nargs="*", help="what to look for from now on")
    parser.add_argument(
        "--node", type=name_option(absolute=True), default="/grounding", help="the node's full name (/grounding)"
    )
    seconds = real_option(0, 1e6, above=True)
    parser.add_argument("--timeout", type=seconds, default=10.0, help="longest wait in seconds (10)")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--clear", action="store_true", help="ask for nothing")
    other.add_argument("--pause", action="store_true", help="leave camera and model alone")
    other.add_argument("--resume", action="store_true", help="go on after a pause")
    return parser
