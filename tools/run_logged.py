"""Run one command of the set-up: its output goes to a log, what matters goes to the screen."""

from __future__ import annotations

import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

Say = Callable[[str], None]
TAIL_LINES = 15


class StepFailed(Exception):
    """A command of the set-up failed; the message is what a person should read."""


def run_logged(command: Sequence[str], log: Path, environment: Mapping[str, str], say: Say) -> None:
    """Run ``command``, append its output to ``log``, and give each line to ``say`` as it comes.

    Raises:
        StepFailed: the command's exit status is not 0; the message has the last lines and where the log is.
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
            process.terminate()  # Ctrl-C: nothing of the command outlives the set-up
            process.wait()
            raise
    if process.returncode != 0:
        lines = "\n".join(f"    {line}" for line in tail)
        name = "pip" if "pip" in command else Path(command[0]).name
        raise StepFailed(f"{name} failed with status {process.returncode}; it ended with\n{lines}\n  whole log: {log}")
