"""Child processes that end with their parent, and the grounding node as one of them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from acs_core.output import check_target
from acs_ros.dds import apply_profile
from acs_ros.rclpy_fixes import LAST_WORDS

STOP_PATIENCE_S = 15.0  # seconds between SIGINT, SIGTERM and SIGKILL
MARK = "# written by acs-node"  # first line of a log; files that begin with it may be overwritten
PR_SET_PDEATHSIG = 1  # linux/prctl.h
# Looked up at import: between fork and exec, a thread that the child lacks may hold the loader's lock.
PRCTL = getattr(ctypes.CDLL(None), "prctl", None)


def start_child(
    module: str, arguments: Sequence[str] = (), env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.Popen[Any]:
    """Start ``python -m MODULE ARGUMENTS``, which ends when its parent dies, even by SIGKILL (Linux only).

    ``env`` is added to this process's environment, and so is the shipped DDS profile if no other is set; ``options``
    are those of :class:`subprocess.Popen`.
    """
    environment = {**os.environ, **(env or {})}
    apply_profile(environment)
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(command, env=environment, preexec_fn=_die_with_starter, **options)


def _die_with_starter() -> None:
    """Make the kernel end this process together with its parent; called in the child."""
    if PRCTL is not None:
        PRCTL(PR_SET_PDEATHSIG, signal.SIGTERM)


class NodeProcess:
    """The process ``python -m MODULE --ros-args ARGS`` with its output in the file ``log``; a context manager.

    ``env`` is added to this process's environment. An existing ``log`` is replaced if a node's process wrote it.
    """

    def __init__(
        self, ros_args: Sequence[str], log: Path, env: Mapping[str, str] | None = None, module: str = "acs_ros.main"
    ) -> None:
        self._module, self._arguments = module, ["--ros-args", *ros_args]
        self._env = {"PYTHONUNBUFFERED": "1", **(env or {})}
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> NodeProcess:
        """Start the process.

        Raises:
            OutputError: ``log`` is a folder, or a file that is not the log of a node.
            OSError: the log cannot be written.
        """
        check_target(self.log)
        with self.log.open("wb") as log:
            log.write(f"{MARK}\n".encode())
            log.flush()
            self._process = start_child(
                self._module,
                self._arguments,
                self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches only the parent, which then stops the node
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
        """Process id; 0 before the start."""
        return self._process.pid if self._process else 0

    @property
    def exit_code(self) -> int | None:
        """Exit code; None while the process runs."""
        return self._process.poll() if self._process else None

    @property
    def froze(self) -> bool:
        """Whether the process was ended by its :class:`~acs_ros.rclpy_fixes.FreezeWatch`."""
        return self.exit_code == 1 and LAST_WORDS in self.log.read_text(errors="replace")

    def wait(self, timeout: float) -> None:
        """Wait until the process ends by itself.

        Raises:
            subprocess.TimeoutExpired: it still runs after ``timeout`` seconds.
        """
        if self._process is not None:
            self._process.wait(timeout)

    def last_lines(self, count: int = 25) -> str:
        """Return the last ``count`` lines of the output."""
        printed = self.log.read_text(errors="replace").removeprefix(f"{MARK}\n")
        return "\n".join(printed.splitlines()[-count:])
