"""Clients of a running grounding node, and the node as a child process.

The public classes are imported from here::

    from acs_ros.client import GroundingClient

They are loaded on first access (PEP 562), so the other modules of this package can be imported without them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acs_ros.client.detection_stream import DetectionStream
    from acs_ros.client.found_objects import FoundObject, FrameObjects, GroundReply
    from acs_ros.client.grounding_client import GroundingClient
    from acs_ros.client.pending_calls import GroundingTask

__all__ = ["DetectionStream", "FoundObject", "FrameObjects", "GroundReply", "GroundingClient", "GroundingTask"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from acs_ros.client import found_objects, grounding_client, pending_calls

    module = next(m for m in (grounding_client, found_objects, pending_calls) if hasattr(m, name))
    globals()[name] = value = getattr(module, name)  # later accesses do not call __getattr__
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
