"""SIGINT and SIGTERM as a flag, for programs that end at a point of their own choice."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from acs_core.entry import write_line

AT_ONCE = 3  # not 2: for one Ctrl-C, a terminal and ros2 launch both send a signal


class StopSignals:
    """While entered, SIGINT and SIGTERM set a flag; calling the object returns it.

    Args:
        on_signal: Called in the handler with the count of signals so far, 1 for the first. It may raise.

    On any thread but the main one, where Python allows no handlers, no signal is caught.
    """

    def __init__(self, on_signal: Callable[[int], None]) -> None:
        self._on_signal, self._count = on_signal, 0
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Whether a signal came."""
        return self._count > 0

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        self._on_signal(self._count)


def end_at_the_third(name: str) -> Callable[[int], None]:
    """An ``on_signal`` that ends the process with exit code 0 at the third signal, with a line on stderr."""

    def on_signal(count: int) -> None:
        if count >= AT_ONCE:
            write_line(f"{name}: stopped at once")
            os._exit(0)

    return on_signal


def interrupt_at_the_second(name: str) -> Callable[[int], None]:
    """An ``on_signal`` that writes a line of ``name`` to stderr, and raises KeyboardInterrupt at the second signal."""

    def on_signal(count: int) -> None:
        if count > 1:
            raise KeyboardInterrupt
        write_line(f"{name}: stopping; what there is will be written (again: at once)")

    return on_signal
