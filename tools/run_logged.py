"""Run a command of the set-up, with its output in a log file."""

from __future__ import annotations

import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

Say = Callable[[str], None]
TAIL_LINES = 15


class StepFailed(Exception):
    """Raised if a command of the set-up failed; the message is meant for the user."""


def run_logged(command: Sequence[str], log: Path, environment: Mapping[str, str], say: Say) -> None:
    """Run ``command``, append its output to ``log``, and pass each line to ``say`` as it is printed.

    Raises:
        StepFailed: the exit status is not 0; the message has the last lines and the path of the log.
    """
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    with (
        log.open("a", buffering=1) as out,
        subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        out.write(f"$ {' '.join(command)}\n")
        try:
            for line in process.stdout or ():
                out.write(line)
                tail.append(line.rstrip())
                say(line.rstrip())
        except BaseException:
            process.terminate()  # Ctrl-C must not leave the command running
            process.wait()
            raise
    if process.returncode != 0:
        lines = "\n".join(f"    {line}" for line in tail)
        name = "pip" if "pip" in command else Path(command[0]).name
        raise StepFailed(f"{name} failed with status {process.returncode}; it ended with\n{lines}\n  whole log: {log}")
