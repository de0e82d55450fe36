"""Python processes that talk over DDS and never outlive their starter."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from acs_ros.dds import apply_profile

PR_SET_PDEATHSIG = 1  # linux/prctl.h
# Looked up here: between fork and exec, the lock of the loader may be held by a thread that is not there any more.
PRCTL = getattr(ctypes.CDLL(None), "prctl", None)


def start_child(
    module: str, arguments: Sequence[str] = (), env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.Popen[Any]:
    """Starts ``python -m MODULE ARGUMENTS``, which ends when its starter dies, even by SIGKILL (Linux only).

    ``env`` is added to this process's environment, and the shipped DDS profile where none is named; ``options`` are
    those of :class:`subprocess.Popen`.
    """
    environment = {**os.environ, **(env or {})}
    apply_profile(environment)
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(command, env=environment, preexec_fn=_die_with_starter, **options)


def _die_with_starter() -> None:
    """In the child."""
    if PRCTL is not None:
        PRCTL(PR_SET_PDEATHSIG, signal.SIGTERM)
