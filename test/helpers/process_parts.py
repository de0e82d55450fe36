"""Processes that tests start, and the DDS domains of nodes."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NUMBERS = itertools.count(os.getpid())


@contextmanager
def fresh_domain() -> Iterator[int]:
    """Reserve a DDS domain on which nobody is, one after the other: it comes again only after all others, so that what
    an earlier test left behind, or a process of it that still starts, is never met."""
    from acs_ros.client.domains import private_domain

    with private_domain(next(_NUMBERS)) as domain:
        yield domain


def gone(pid):
    """Whether the process has ended, waited for or not."""
    try:
        return "zombie" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
