"""Python classes of ROS types by the names that the graph gives them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# What an action's services are called in the graph, and where its class keeps them.
ACTION_PARTS = {"SendGoal": "SendGoalService", "GetResult": "GetResultService"}


def class_of(name: str) -> Any:
    """The class of ``package/msg/Name``, ``package/srv/Name`` or ``package/action/Name``, with the services of an
    action as ``package/action/Name_SendGoal`` and ``..._GetResult``, and its parts as ``package/action/Name_Goal``.

    Raises:
        ImportError: The package is not installed.
        AttributeError: It has no such type.
    """
    package, kind, own = name.split("/")
    module = import_module(f"{package}.{kind}")
    if hasattr(module, own) or kind != "action":
        return getattr(module, own)
    action, _, part = own.rpartition("_")
    made = getattr(module, action)
    return getattr(made.Impl, ACTION_PARTS[part]) if part in ACTION_PARTS else getattr(made, part)
