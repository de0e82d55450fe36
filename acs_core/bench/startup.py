"""CPU time until a command has printed its help, and until a model is loaded with and without unused imports."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points
from typing import Any

from acs_core.errors import BenchError

COMMANDS = "acs_ros.commands"  # the module of the console scripts
_LOAD = "from acs_core.grounder import Grounder; Grounder.from_pretrained({model!r}, device='cpu')"
_LIGHTLY = """
from acs_core.light_imports import load_lightly
def load():
    {load}
load_lightly(load)
"""


@dataclass(frozen=True)
class StartupRow:
    """CPU time of one process.

    Attributes:
        what: what the process does.
        cpu_s: seconds of CPU time, user and system, the smallest of several runs.
    """

    what: str
    cpu_s: float

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return asdict(self)


def startup_times(model: str, repeats: int) -> list[StartupRow]:
    """Measure every console script's ``--help``, and loading ``model`` with all imports and lightly.

    Args:
        model: short name of a model that ships with acs, or a folder.
        repeats: number of runs of each.

    Raises:
        BenchError: a process fails.
    """
    scripts = sorted((e for e in entry_points(group="console_scripts") if e.module == COMMANDS), key=lambda e: e.name)
    rows = []
    for script in scripts:
        code = f"import sys; sys.argv = [{script.name!r}, '--help']; import {COMMANDS} as c; c.{script.attr}()"
        rows.append(StartupRow(f"{script.name} --help", _cpu_s(code, repeats)))
    load = _LOAD.format(model=model)
    rows.append(StartupRow("import torch", _cpu_s("import torch", repeats)))
    rows.append(StartupRow(f"load {model}, all imports", _cpu_s(load, repeats)))
    rows.append(StartupRow(f"load {model}, lightly", _cpu_s(_LIGHTLY.format(load=load), repeats)))
    return rows


def _cpu_s(code: str, repeats: int) -> float:
    return min(_run([sys.executable, "-c", code]) for _ in range(repeats))


def _run(command: Sequence[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if ended.returncode not in (0, 2):  # 2: a node says that it takes --ros-args
        raise BenchError(f"a process ended with exit code {ended.returncode}: {ended.stderr.strip()[-300:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
