"""Flooders seen from their starter: started, kept in step, heard to the end, and never left behind."""

from __future__ import annotations

import json
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Any

from acs_ros.child import start_child
from acs_ros.node_client import NodeTrouble
from acs_stress.flooder import GO, LAST

STOP_S = 5.0


class Flooder:
    """A process that runs :mod:`acs_stress.flooder` in ``role``; a context manager.

    ``alive`` raises :class:`NodeTrouble` when it is not worth waiting any more.
    """

    def __init__(self, role: str, options: dict[str, Any], alive: Callable[[], None]) -> None:
        self.role, self._options, self._alive = role, options, alive
        self._lines: queue.Queue[str] = queue.Queue()
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Flooder:
        self._errors = tempfile.TemporaryFile("w+")  # a pipe that nobody reads would hold it up
        self._process = start_child(
            "acs_stress.flooder",
            [self.role, json.dumps(self._options)],
            {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            # No session of its own, unlike the node: Linux shares out processors by session, and all who load the
            # node together are one. Ctrl-C therefore reaches them too, and is left to the starter.
        )
        threading.Thread(target=self._read, name=f"hear-{self.role}", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if process is None:
            return
        if process.stdin is not None and error is None and process.poll() is None:
            process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
        self.kill()
        self._errors.close()

    def kill(self) -> None:
        """End it by SIGKILL, as a peer that dies."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def tell(self, word: str) -> None:
        """Let it go on; does not wait.

        Raises:
            NodeTrouble: it is gone.
        """
        try:
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.write(word + "\n")
                self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._gone() from error

    def hear(self, timeout: float) -> dict[str, Any]:
        """The next that it says.

        Raises:
            NodeTrouble: it ended, or said nothing in time.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            self._alive()
            try:
                line = self._lines.get(timeout=0.1)
            except queue.Empty:
                continue
            if not line:
                raise self._gone()
            told: dict[str, Any] = json.loads(line)
            return told
        raise NodeTrouble(f"the {self.role} said nothing for {timeout:g} s")

    def _gone(self) -> NodeTrouble:
        self._errors.seek(0)
        words = self._errors.read().strip().splitlines() or ["without a word"]
        return NodeTrouble(f"the {self.role} ended by itself: {words[-1]}")

    def _read(self) -> None:
        if self._process is not None and self._process.stdout is not None:
            for line in self._process.stdout:
                self._lines.put(line)
        self._lines.put("")


@contextmanager
def crowd(flooders: Sequence[Flooder], timeout: float) -> Iterator[Sequence[Flooder]]:
    """All of them, connected."""
    with ExitStack() as stack:
        for flooder in flooders:
            stack.enter_context(flooder)
        for flooder in flooders:
            flooder.hear(timeout)
        yield flooders


def flood(flooders: Sequence[Flooder]) -> None:
    """Let all begin."""
    for flooder in flooders:
        flooder.tell(GO)


def floods(flooders: Sequence[Flooder], timeout: float) -> list[dict[str, Any]]:
    """What each has done when its flood is over."""
    return [flooder.hear(timeout) for flooder in flooders]


def finish(flooders: Sequence[Flooder], timeout: float) -> list[dict[str, Any]]:
    """Let each send what is to stay; all that it has done."""
    for flooder in flooders:
        flooder.tell(LAST)
    return [flooder.hear(timeout) for flooder in flooders]
