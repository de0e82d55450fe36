"""Handles of the load clients' processes: start, synchronise, collect results, end."""

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

from acs_ros.client.node_process import start_child
from acs_ros.errors import NodeTrouble
from acs_ros.stress.client_main import GO, LAST

STOP_S = 5.0


class ClientProcess:
    """Process that runs :mod:`acs_ros.stress.client_main` in ``role``; a context manager.

    ``alive`` is called while waiting and raises :class:`NodeTrouble` if the node has ended.
    """

    def __init__(self, role: str, options: dict[str, Any], alive: Callable[[], None]) -> None:
        self.role, self._options, self._alive = role, options, alive
        self._lines: queue.Queue[str] = queue.Queue()
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> ClientProcess:
        self._errors = tempfile.TemporaryFile("w+")  # a pipe that is not read would block the process
        self._process = start_child(
            "acs_ros.stress.client_main",
            [self.role, json.dumps(self._options)],
            {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            # No session of its own, unlike the node: Linux shares processor time between sessions, and all load
            # clients together count as one. Ctrl-C therefore reaches them too; they ignore it.
        )
        threading.Thread(target=self._read, name=f"read-{self.role}", daemon=True).start()
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
        """End the process by SIGKILL, like a peer that crashes."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def send(self, word: str) -> None:
        """Send a word to the process's stdin; does not wait.

        Raises:
            NodeTrouble: the process has ended.
        """
        try:
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.write(word + "\n")
                self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._gone() from error

    def receive(self, timeout: float) -> dict[str, Any]:
        """Return the next line of JSON of the process.

        Raises:
            NodeTrouble: the process or the node ended, or no line came within ``timeout`` seconds.
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
            message: dict[str, Any] = json.loads(line)
            return message
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
def connected_clients(clients: Sequence[ClientProcess], timeout: float) -> Iterator[Sequence[ClientProcess]]:
    """Start all clients and yield them once each is connected to the node."""
    with ExitStack() as stack:
        for client in clients:
            stack.enter_context(client)
        for client in clients:
            client.receive(timeout)
        yield clients


def start_flood(clients: Sequence[ClientProcess]) -> None:
    """Start the floods of all clients."""
    for client in clients:
        client.send(GO)


def wait_for_floods(clients: Sequence[ClientProcess], timeout: float) -> list[dict[str, Any]]:
    """Wait until all floods are over; returns each client's counts."""
    return [client.receive(timeout) for client in clients]


def finish_floods(clients: Sequence[ClientProcess], timeout: float) -> list[dict[str, Any]]:
    """Let each client send its final message; returns each client's total counts."""
    for client in clients:
        client.send(LAST)
    return [client.receive(timeout) for client in clients]
