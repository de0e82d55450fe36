"""Sets the standing queries: ``python -m acs_ros.examples.ask_by_service key "red mug"``.

Without phrases it lists those in force; --clear, --pause and --resume do what they say.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import rclpy
from acs_msgs.srv import ListQueries, SetQueries
from rclpy.node import Node
from rclpy.utilities import remove_ros_args
from std_srvs.srv import SetBool, Trigger


class ServiceClient(Node):
    """Calls the services of a grounding node, one after the other."""

    def __init__(self, grounding: str, timeout: float) -> None:
        super().__init__("ask_by_service")
        self._grounding, self._timeout = grounding, timeout

    def call(self, kind: Any, name: str, **fields: Any) -> Any:
        """The response of ``~/name``.

        Raises:
            TimeoutError: the service is not there, or does not answer.
        """
        client: Any = self.create_client(kind, f"{self._grounding}/{name}")
        if not client.wait_for_service(self._timeout):
            raise TimeoutError(f"no service {self._grounding}/{name}: is the node running?")
        future = client.call_async(kind.Request(**fields))
        rclpy.spin_until_future_complete(self, future, timeout_sec=self._timeout)
        if not future.done():
            raise TimeoutError(f"{self._grounding}/{name} did not answer within {self._timeout:g} s")
        return future.result()


def main(arguments: Sequence[str] | None = None) -> int:
    """Set, list, clear or pause; the exit code: 1 where that was refused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phrases", nargs="*", help="what to look for from now on")
    parser.add_argument("--node", default="/grounding", help="the node's full name (/grounding)")
    parser.add_argument("--timeout", type=float, default=10.0, help="longest wait in seconds (10)")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--clear", action="store_true", help="ask for nothing")
    other.add_argument("--pause", action="store_true", help="leave camera and model alone")
    other.add_argument("--resume", action="store_true", help="go on after a pause")
    options = parser.parse_args(remove_ros_args(sys.argv)[1:] if arguments is None else arguments)
    with rclpy.init():
        client = ServiceClient(options.node, options.timeout)
        try:
            if options.clear:
                answer = client.call(Trigger, "clear_queries")
            elif options.pause or options.resume:
                answer = client.call(SetBool, "pause", data=options.pause)
            elif options.phrases:
                answer = client.call(SetQueries, "set_queries", phrases=options.phrases)
            else:
                listed = client.call(ListQueries, "list_queries")
                paused = ", paused" if listed.paused else ""
                print(f"{listed.mode}{paused}: {', '.join(listed.phrases) or 'nothing is asked'}")
                return 0
        except TimeoutError as error:
            print(error, file=sys.stderr)
            return 1
        finally:
            client.destroy_node()
    print(answer.message)
    return 0 if answer.success else 1


if __name__ == "__main__":
    sys.exit(main())
