"""The grounding node as a process of its own, which never outlives its starter."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from acs_ros.child import start_child
from acs_ros.freeze_watch import LAST_WORDS

STOP_PATIENCE_S = 15.0


class NodeProcess:
    """Runs ``python -m MODULE --ros-args ARGS`` with its output in ``log``; a context manager.

    ``env`` is added to this process's environment.
    """

    def __init__(
        self, ros_args: Sequence[str], log: Path, env: Mapping[str, str] | None = None, module: str = "acs_ros.main"
    ) -> None:
        self._module, self._arguments = module, ["--ros-args", *ros_args]
        self._env = {"PYTHONUNBUFFERED": "1", **(env or {})}
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> NodeProcess:
        with self.log.open("wb") as log:
            self._process = start_child(
                self._module,
                self._arguments,
                self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the starter, which then stops the node in its own time
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if process is None:
            return
        for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if process.poll() is not None:
                return
            process.send_signal(sign)
            try:
                process.wait(STOP_PATIENCE_S)
            except subprocess.TimeoutExpired:
                continue

    @property
    def pid(self) -> int:
        """The process id; 0 before the start."""
        return self._process.pid if self._process else 0

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll() if self._process else None

    @property
    def froze(self) -> bool:
        """Whether it ended because nothing ran in it any more (:mod:`acs_ros.freeze_watch`)."""
        return self.exit_code == 1 and LAST_WORDS in self.log.read_text(errors="replace")

    def wait(self, timeout: float) -> None:
        """Wait until it ends by itself.

        Raises:
            subprocess.TimeoutExpired: it still runs after ``timeout`` seconds.
        """
        if self._process is not None:
            self._process.wait(timeout)

    def last_lines(self, count: int = 25) -> str:
        """The end of what it printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])
