"""What the system refused, in words that say where and what to do."""

from __future__ import annotations

import errno

FULL = (errno.ENOSPC, errno.EDQUOT)


def os_problem(error: OSError, where: object = "") -> str:
    """One sentence about ``error``: the file, else ``where``; what is wrong; and, of a full disk, what to do."""
    place = error.filename or where
    said = f"{place}: {error.strerror or error}" if place else str(error.strerror or error)
    if error.errno in FULL:
        said += ". Free some space, or write to another disk, and run the same command again"
    return said
