"""An end for a process in which nothing runs any more, so that who started it can start it again.

rclpy publishes without letting other Python threads run meanwhile. Where publishing never returns, as in Fast DDS when
a subscriber was killed while it took a message (eProsima/Fast-DDS#6485), the whole process stands still: no callback,
no signal, no log line. Only a thread that needs no Python can end it; the standard library's faulthandler has one.
"""

from __future__ import annotations

import faulthandler
import threading
from types import TracebackType

STDERR = 2  # the descriptor: what stands for it in Python may need Python
SIGNS = 4  # of life per timeout
LAST_WORDS = "Timeout ("  # of faulthandler, which cannot be given others


class FreezeWatch:
    """While it lasts, a process in which no Python runs for ``timeout`` seconds (0: never mind) ends with exit code 1.

    Its last words on stderr are "Timeout (0:00:30)!" and what each thread was doing.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sign, name="freeze-watch", daemon=True)

    def __enter__(self) -> FreezeWatch:
        if self._timeout > 0:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if self._timeout > 0:
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()

    def _sign(self) -> None:
        while True:
            faulthandler.dump_traceback_later(self._timeout, exit=True, file=STDERR)
            if self._done.wait(self._timeout / SIGNS):
                return
