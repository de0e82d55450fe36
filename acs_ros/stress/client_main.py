"""Load client as a process of its own: ``python -m acs_ros.stress.client_main ROLE OPTIONS``.

OPTIONS is a JSON object with the keyword arguments of the role's class. The process is controlled by words on stdin and
answers with lines of JSON on stdout: ``{"ready": true}`` once it is connected, counts after ``go`` (the flood), and
total counts after ``last`` (the final message, which the node must process).
"""

from __future__ import annotations

if __name__ == "__main__":  # first: a signal may come while the modules below are imported
    from acs_core.entry import run

    run("acs_ros.stress.client_main", "load client")

import json
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

import rclpy
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from acs_ros.stress.clients import CameraPublisher, GoalSender, QueryPublisher, ServiceCaller, SlowSubscriber

CONNECT_S = 60.0
GO, LAST = "go", "last"


class LoadClient(Protocol):
    """Interface of clients that load the node."""

    def connected(self) -> bool:
        """Whether the client is connected to the node; spins if necessary."""

    def flood(self) -> dict[str, Any]:
        """Load the node for the configured time; returns counts for the report."""

    def last(self) -> dict[str, Any]:
        """Send the final message after the flood, if there is one; returns the total counts."""


ROLES: dict[str, Callable[..., LoadClient]] = {
    "camera": CameraPublisher,
    "queries": QueryPublisher,
    "services": ServiceCaller,
    "goals": GoalSender,
    "subscriber": SlowSubscriber,
}


def main() -> int:
    """Run one client. Exit code 1 if the node is not found."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    role_name, options = sys.argv[1], json.loads(sys.argv[2])
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)  # with rclpy 7 it is no context manager
    try:
        return _follow(role_name, options)
    finally:
        rclpy.try_shutdown()


def _follow(role_name: str, options: dict[str, Any]) -> int:
    """Connect the client, and do what the lines of stdin say until it ends. Returns the exit code."""
    node = Node(f"load_client_{role_name}", use_global_arguments=False)
    role = ROLES[role_name](node, **options)
    deadline = time.monotonic() + CONNECT_S
    while not role.connected():
        if time.monotonic() > deadline:
            print(f"the node was not found within {CONNECT_S:g} s", file=sys.stderr)
            return 1
        time.sleep(0.02)
    _print_json({"ready": True})
    steps = {GO: role.flood, LAST: role.last}
    began = time.process_time()
    for line in sys.stdin:
        counts = steps[line.strip()]()
        _print_json({**counts, "cpu_s": time.process_time() - began})
    return 0


def _print_json(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)
