"""One of those who load the node, as a process of its own: ``python -m acs_stress.flooder ROLE OPTIONS``.

OPTIONS is a JSON object. Lines of JSON on stdout and words on stdin keep it in step with its starter: it says
``{"ready": true}`` once it is connected, floods at ``go``, says what it sent, sends what is to stay at ``last``, and
tells the whole of it.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

import rclpy
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from acs_stress.callers import GoalAsker, ServiceCaller
from acs_stress.hearers import Hearer
from acs_stress.senders import CameraSender, QuerySender

CONNECT_S = 60.0
GO, LAST = "go", "last"


class Role(Protocol):
    """What a flooder does."""

    def connected(self) -> bool:
        """Whether the node is there; spins where that needs it."""

    def flood(self) -> dict[str, Any]:
        """Load the node for as long as the options say; what was done."""

    def last(self) -> dict[str, Any]:
        """What is to stay when the flood is over; all that was done."""


ROLES: dict[str, Callable[..., Role]] = {
    "camera": CameraSender,
    "queries": QuerySender,
    "services": ServiceCaller,
    "goals": GoalAsker,
    "hearer": Hearer,
}


def main() -> int:
    """Play the role; exit code 1 when the node is not found."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    role_name, options = sys.argv[1], json.loads(sys.argv[2])
    with rclpy.init(signal_handler_options=SignalHandlerOptions.NO):
        node = Node(f"flooder_{role_name}", use_global_arguments=False)
        role = ROLES[role_name](node, **options)
        deadline = time.monotonic() + CONNECT_S
        while not role.connected():
            if time.monotonic() > deadline:
                print(f"the node was not found within {CONNECT_S:g} s", file=sys.stderr)
                return 1
            time.sleep(0.02)
        _say({"ready": True})
        steps = {GO: role.flood, LAST: role.last}
        began = time.process_time()
        for line in sys.stdin:
            told = steps[line.strip()]()
            _say({**told, "cpu_s": time.process_time() - began})
    return 0


def _say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    sys.exit(main())
