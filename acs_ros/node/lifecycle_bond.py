"""Bond with a lifecycle manager, where bondpy is installed.

nav2's lifecycle manager, and others that follow it, forms a bond with each node that it activated, on the topic `bond`
and with the node's name as id: each side sends heartbeats, so that either notices when the other dies. Without a bond
the manager takes the node for dead (unless its own ``bond_timeout`` is 0).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from rclpy.node import Node

from acs_ros.errors import describe

TOPIC = "bond"
HEARTBEAT_TIMEOUT_S = 4.0  # as nav2's nodes have it
# bondpy declares this parameter each time that a heartbeat is missed, which fails if it is declared already.
TIMEOUT_PARAMETER = "/bond_disable_heartbeat_timeout"
MakeBond = Callable[..., Any]


def find_bond() -> MakeBond | None:
    """The class ``bondpy.bondpy.Bond``; None where bondpy is not installed.

    Raises:
        Exception: bondpy is installed, but cannot be imported.
    """
    try:
        from bondpy.bondpy import Bond
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "bondpy":
            raise
        return None
    found: MakeBond = Bond
    return found


class LifecycleBond:
    """The bond of ``node`` while it is active.

    Args:
        node: The lifecycle node.
        period: Seconds between two heartbeats; 0 for no bond.
        find: Returns the class of the bond, or None if there is none.
    """

    def __init__(self, node: Node, period: float, find: Callable[[], MakeBond | None] = find_bond) -> None:
        self._node, self._period, self._find = node, period, find
        self._lock = threading.Lock()
        self._bond: Any = None
        self._formed: Any = None  # the last bond that the other side joined

    def form(self) -> bool:
        """Start sending heartbeats. Returns whether that is possible.

        A node without a lifecycle manager sends them for the 10 s in which bondpy waits for the other side.
        """
        self.release()
        try:
            kind = self._find() if self._period > 0 else None
        except Exception as error:  # a broken installation
            self._node.get_logger().warning(
                f"no bond with the lifecycle manager, as bondpy cannot be imported: {describe(error)}; set the "
                "manager's bond_timeout to 0.0, or repair bondpy"
            )
            return False
        if kind is None:
            return False
        if self._node.has_parameter(TIMEOUT_PARAMETER):
            self._node.undeclare_parameter(TIMEOUT_PARAMETER)
        bond = kind(self._node, TOPIC, self._node.get_name())
        bond.set_formed_callback(lambda: self._on_formed(bond))
        bond.set_broken_callback(lambda: self._on_broken(bond))
        bond.set_heartbeat_period(self._period)
        bond.set_heartbeat_timeout(HEARTBEAT_TIMEOUT_S)
        with self._lock:
            self._bond, self._formed = bond, None
        bond.start()
        return True

    def release(self) -> None:
        """Break the bond, which tells the other side that the node is no longer active."""
        with self._lock:
            bond, self._bond = self._bond, None
        if bond is None:
            return
        bond.shutdown()
        # bondpy destroys them, but leaves them in the lists of the node.
        self._node.destroy_subscription(bond.sub)
        self._node.destroy_publisher(bond.pub)

    @property
    def formed(self) -> bool:
        """Whether there is a bond that a manager joined, and that neither side has ended."""
        with self._lock:
            return self._bond is not None and self._formed is self._bond

    def _on_formed(self, bond: Any) -> None:
        with self._lock:
            self._formed = bond
        self._node.get_logger().info("bonded with the lifecycle manager")

    def _on_broken(self, bond: Any) -> None:
        with self._lock:
            # Not by release(), of which bondpy reports the end seconds later, and not for lack of a manager.
            lost = self._bond is bond and self._formed is bond
            if lost:
                self._formed = None
        if lost:
            self._node.get_logger().warning(
                "the bond with the lifecycle manager is broken: it ended or does not answer; the node goes on"
            )
