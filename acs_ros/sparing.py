"""Log lines for what may come in a flood: one of each kind in a while, and nothing to pay for those that are spared.

rclpy's own throttling looks at the call stack, with the source lines of every frame of it, before it decides that there
is nothing to write: milliseconds for each frame of a camera, in which no other thread of the node runs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

LOG_PERIOD_S = 5.0  # whatever may come in a flood writes one line of its kind per this many seconds


class SparingLogger:
    """Writes to ``logger`` at most one line of each kind per LOG_PERIOD_S; safe to use from any thread.

    ``kind`` names what is said, with few different values: the lines of one kind stand for each other.
    """

    def __init__(self, logger: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger, self._clock = logger, clock
        self._lock = threading.Lock()
        self._written: dict[str, float] = {}

    def info(self, kind: str, text: Callable[[], str] | str) -> None:
        """Say what goes on. A ``text`` that costs something to make may be a function."""
        if self._is_due(kind):
            self._logger.info(text if isinstance(text, str) else text())

    def warning(self, kind: str, text: Callable[[], str] | str) -> None:
        """Say what is wrong. A ``text`` that costs something to make may be a function."""
        if self._is_due(kind):
            self._logger.warning(text if isinstance(text, str) else text())

    def _is_due(self, kind: str) -> bool:
        now = self._clock()
        with self._lock:
            last = self._written.get(kind)
            if last is not None and now - last < LOG_PERIOD_S:
                return False
            self._written[kind] = now
            return True
