"""Loads the model on a thread of its own, so that a process told to stop need not wait until it is loaded.

torch and transformers look up from nothing while they load. The thread is a daemon; what it still loads after it was
given up is dropped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from acs_core.errors import Cancelled
from acs_ros.grounder_source import GrounderLike, GrounderLoader
from acs_ros.parameters import Settings

TELL_S = 10.0  # how often a person hears that it still loads


class ModelLoader:
    """Runs ``load(settings)`` for whoever waits in :meth:`get`, one at a time, until :meth:`close`."""

    def __init__(self, load: GrounderLoader, tell_period: float = TELL_S) -> None:
        self._load, self._tell_period = load, tell_period
        self._changed = threading.Condition()
        self._closed = False
        self._outcome: GrounderLike | BaseException | None = None
        self._thread: threading.Thread | None = None

    def get(self, settings: Settings, tell: Callable[[float], None] | None = None) -> GrounderLike:
        """Load the model and wait for it; ``tell`` is called every TELL_S with the seconds since the begin.

        Raises:
            Cancelled: :meth:`close` was called, before or meanwhile.
            BaseException: what ``load`` raised.
        """
        with self._changed:
            if not self._closed:
                self._thread = threading.Thread(target=self._run, args=(settings,), name="acs-loading", daemon=True)
                self._thread.start()
            began = time.monotonic()
            while not self._changed.wait_for(lambda: self._closed or self._outcome is not None, self._tell_period):
                if tell is not None:
                    tell(time.monotonic() - began)
            outcome, self._outcome = self._outcome, None
            if self._closed or outcome is None:
                raise Cancelled("told to stop before the model was loaded")
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def close(self) -> None:
        """Let :meth:`get` return at once, now and ever after; the thread ends when ``load`` does."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def running(self) -> bool:
        """Whether a model loads, wanted or not."""
        return self._thread is not None and self._thread.is_alive()

    def _run(self, settings: Settings) -> None:
        outcome: GrounderLike | BaseException
        try:
            outcome = self._load(settings)
        except BaseException as error:  # handed to whoever waits, whatever it is
            outcome = error
        with self._changed:
            self._outcome = None if self._closed else outcome
            self._changed.notify_all()
