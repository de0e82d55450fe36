"""The named error of this room. Its message says what was wrong, where, and what to do about it."""

from acs_core.errors import AcsError


class DataError(AcsError):
    """Annotations, pictures or a collection that cannot be used."""
