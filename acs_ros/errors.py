"""Named errors of bags and of clients of the node, and the description of any error in one line. Imports no ROS."""

from acs_core.errors import AcsError
from acs_core.plain_text import one_line

MAX_DESCRIPTION = 2000  # characters


class BagError(AcsError):
    """A bag cannot be read or written, or has no frames; the message says which, and what to do."""


class NodeTrouble(AcsError):
    """The node does not start, died, or refused a request; the message says which, with the node's last status."""


def describe(error: BaseException) -> str:
    """The message of an error in one line; errors that are not :class:`AcsError` with the name of their class."""
    return one_line(str(error) if isinstance(error, AcsError) else f"{type(error).__name__}: {error}", MAX_DESCRIPTION)
