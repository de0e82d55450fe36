"""Notices other nodes of the same full name: both would take the queries and images and publish on the same topics."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from rclpy.node import Node

from acs_ros.diagnostics.statistics import NodeStatistics

EVENTS = "/parameter_events"  # every node publishes there
LEASE_S = 20  # Fast DDS drops a participant that was killed after this time


def nodes_with_parameters(node: Node) -> list[tuple[str, str]]:
    """(name, namespace) of each node that publishes changes of its parameters, as all do, with ``node`` itself.

    Unlike :meth:`rclpy.node.Node.get_node_names_and_namespaces`, this leaves out nodes that were destroyed in a process
    that goes on: their names stay in the graph while anything holds their handle, such as an action client.
    """
    return [(at.node_name, at.node_namespace) for at in node.get_publishers_info_by_topic(EVENTS)]


class NameWatch:
    """Sets the statistic ``name_problem`` while more than one node has a name, and logs when that begins and ends.

    Args:
        name: Full name of the own node.
        nodes: Returns (name, namespace) of each node in the graph (:func:`nodes_with_parameters`).
        statistics: Where the problem is set.
        logger: Logger of the node.
    """

    def __init__(
        self, name: str, nodes: Callable[[], Iterable[tuple[str, str]]], statistics: NodeStatistics, logger: Any
    ) -> None:
        self._name, self._nodes, self._statistics, self._logger = name, nodes, statistics, logger
        self._others = 0

    def look(self) -> None:
        """Look for other nodes of the name now.

        Called by a timer of the node. Sets the statistic and logs only if the number of other nodes has changed.
        """
        found = sum(f"{namespace.rstrip('/')}/{name}" == self._name for name, namespace in self._nodes())
        others, before = max(0, found - 1), self._others  # the own node may not be in the graph yet
        self._others = others
        if others == before:
            return
        if others:
            problem = (
                f"{others} more {'node is' if others == 1 else 'nodes are'} named {self._name}: each takes the queries "
                "and publishes on the same topics. End one of them, or start it with another name or namespace (-r "
                f"__node:=NAME, -r __ns:=/NAMESPACE). One that was killed counts for some {LEASE_S} s"
            )
            self._statistics.set(name_problem=problem)
            self._logger.warning(problem)
        else:
            self._statistics.set(name_problem="")
            self._logger.info(f"no other node is named {self._name} any more")
