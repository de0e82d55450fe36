"""What a benchmark cannot do."""

from acs_core.errors import AcsError


class BenchError(AcsError):
    """A benchmark cannot run as it was asked to."""
