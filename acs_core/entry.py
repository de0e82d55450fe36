"""Start of a command with signal handling: Ctrl-C and SIGTERM never print a stack trace, not even during imports.

This module imports nothing that takes time. A console script and the ``__main__`` block of a command call :func:`run`
first. Signals that arrive before that, while Python itself starts, cannot be handled here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from types import FrameType
from typing import Any, NoReturn

STOPPED = 130  # exit code after Ctrl-C, as shells report it


def run(module: str, name: str, stopped: int = STOPPED, *, at_once: bool = False) -> NoReturn:
    """Import ``module``, call its ``main()`` and exit with the code that it returns (None: 0).

    During the imports, SIGINT and SIGTERM end the process at once. From then on the first one raises KeyboardInterrupt
    in ``main`` and the second one ends the process at once, unless ``main`` sets other handlers. A process that was
    started with SIGINT ignored (``nohup``, a background job of a shell) keeps ignoring it. Processes that ``main``
    forks have Python's default handling.

    Args:
        module: Dotted name of the module.
        name: Name of the command for the line "NAME: stopped" on stderr.
        stopped: Exit code after a signal that ``main`` does not handle itself.
        at_once: End the process when ``main`` has returned and the standard streams are flushed, without Python's own
            end: with torch loaded it takes seconds, and ``ros2 launch`` sends SIGTERM 5 s after Ctrl-C. ``main`` must
            have closed what it opened; functions of :mod:`atexit` are not called.

    Raises:
        SystemExit: Always, unless ``at_once``.
    """
    signals = _Signals(name, stopped)
    signals.end_the_process()
    main = import_module(module).main
    try:
        code = _call(main, signals, stopped)
    except KeyboardInterrupt:
        signals.say_stopped()
        code = stopped
    signals.ignore()
    if at_once and (code is None or isinstance(code, int)):  # a text is for sys.exit to print
        _leave(code or 0)
    sys.exit(code)


def _leave(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, or the reader of a pipe is gone
            stream.flush()
    os._exit(code)


def _call(main: Callable[[], Any], signals: _Signals, stopped: int) -> Any:
    """Return the exit code of ``main()``, with signals ignored afterwards.

    Raises:
        KeyboardInterrupt: A signal arrived, here or in ``main``; the next one ends the process.
        Exception: An error of ``main`` before any signal.
    """
    signals.interrupt_main()
    try:
        code = main()
    except SystemExit as ended:
        code = ended.code
        if signals.interrupted and code == STOPPED:  # how typer passes KeyboardInterrupt on
            raise KeyboardInterrupt from ended
    except Exception as error:
        if signals.interrupted:  # an import that was interrupted may end in any error
            raise KeyboardInterrupt from error
        raise
    signals.ignore()
    return stopped if signals.interrupted and code not in (0, None) else code


def write_line(text: str) -> None:
    """Write a line to stderr without raising; unlike ``print``, also safe in a signal handler."""
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode())


class _Signals:
    """Signal handlers of a command for SIGINT and SIGTERM."""

    def __init__(self, name: str, stopped: int) -> None:
        self._name, self._stopped = name, stopped
        self._process = os.getpid()
        sigint_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        self._numbers = (signal.SIGTERM,) if sigint_ignored else (signal.SIGINT, signal.SIGTERM)
        self.interrupted = False

    def end_the_process(self) -> None:
        """Let either signal end the process at once."""
        for number in self._numbers:
            signal.signal(number, self._end)

    def interrupt_main(self) -> None:
        """Let the first signal raise KeyboardInterrupt and the second one end the process."""
        for number in self._numbers:
            signal.signal(number, self._interrupt)
        self._unraisable = sys.unraisablehook
        sys.unraisablehook = self._lost

    def ignore(self) -> None:
        """Ignore both signals, since the process is ending."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)

    def say_stopped(self) -> None:
        """Print "NAME: stopped" on stderr."""
        write_line(f"{self._name}: stopped")

    def _end(self, number: int, frame: FrameType | None) -> NoReturn:
        self.say_stopped()
        os._exit(self._stopped)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # forked
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            raise KeyboardInterrupt
        if self.interrupted:
            self._end(number, frame)
        self.interrupted = True
        raise KeyboardInterrupt

    def _lost(self, unraisable: Any) -> None:
        """End the process if KeyboardInterrupt was raised in a finalizer, where Python would only print it."""
        if unraisable.exc_type is KeyboardInterrupt and os.getpid() == self._process:
            self._end(signal.SIGINT, None)
        self._unraisable(unraisable)
