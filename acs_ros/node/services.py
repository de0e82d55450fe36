"""The node's services: set, list and clear the standing queries, and pause."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from acs_msgs.srv import ListQueries, SetQueries
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

from acs_core.errors import PhraseError
from acs_ros.dds import SERVICE
from acs_ros.diagnostics.status import show_queries
from acs_ros.node.parameters import NodeParameters
from acs_ros.node.query_manager import QueryManager
from acs_ros.rclpy_fixes import ThrottledLogger


class QueryServices:
    """``~/set_queries``, ``~/list_queries``, ``~/clear_queries`` and ``~/pause`` of ``node``.

    Args:
        node: The node that serves them.
        query_manager: Holds the standing queries.
        parameters: The node's parameters.
        goals: Returns how many goals of ~/ground wait or run.
        set_queries: Sets the standing queries as ~/query does; raises PhraseError.
        hold: Pauses (True) or resumes (False).
        log: Throttled logger.
    """

    def __init__(
        self,
        node: Node,
        query_manager: QueryManager,
        parameters: NodeParameters,
        goals: Callable[[], int],
        set_queries: Callable[[list[str]], None],
        hold: Callable[[bool], None],
        log: ThrottledLogger,
    ) -> None:
        self._query_manager, self._parameters, self._goals, self._log = query_manager, parameters, goals, log
        self._set_queries, self._hold = set_queries, hold
        group = MutuallyExclusiveCallbackGroup()

        def serve(kind: Any, name: str, callback: Any) -> None:
            node.create_service(kind, name, callback, qos_profile=SERVICE, callback_group=group)

        serve(SetQueries, "~/set_queries", self._set)
        serve(ListQueries, "~/list_queries", self._list)
        serve(Trigger, "~/clear_queries", self._clear)
        serve(SetBool, "~/pause", self._pause)

    def _set(self, request: SetQueries.Request, response: SetQueries.Response) -> SetQueries.Response:
        try:
            self._set_queries(list(request.phrases))
        except PhraseError as error:
            response.success, response.message = False, str(error)
        else:
            asked = self._query_manager.queries
            response.success = True
            response.message = f"asking for {show_queries(asked)}" if asked else "nothing is asked"
        response.phrases = list(self._query_manager.queries)
        return response

    def _list(self, request: ListQueries.Request, response: ListQueries.Response) -> ListQueries.Response:
        response.phrases = list(self._query_manager.queries)
        response.mode, response.paused = self._parameters.current.mode, self._query_manager.held
        response.goals = self._goals()
        return response

    def _clear(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        cleared = len(self._query_manager.queries)
        self._set_queries([])
        response.success = True
        response.message = f"{cleared} standing {'query' if cleared == 1 else 'queries'} cleared"
        return response

    def _pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        was = self._query_manager.held
        self._hold(bool(request.data))
        state = "paused" if request.data else "going on"
        response.success = True
        response.message = f"{state}{' already' if was == request.data else ''}"
        self._log.info("pause", f"~/pause: {response.message}")
        return response
