"""What a fuzzing target is, and how one case of it is run and judged."""

from __future__ import annotations

import resource
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from acs_core.plain_text import printable
from fuzz.draw import FuzzedData

ROOT = Path(__file__).resolve().parents[2]
SLOW_S = (
    5.0  # a case that takes longer is a defect; sanitised, instrumented and on a busy core a good one takes < 0.1 s
)
GROWTH_MB = 512  # so is one by which the process grows more


class Broken(Exception):
    """The code answered, but with something that must not be: the message says what."""


@dataclass(frozen=True)
class Target:
    """One way in. ``run`` does a case: it returns, or raises one of ``named``. It raises :class:`Broken` for an answer
    that breaks a promise. ``heavy``: a case takes tenths of a second."""

    name: str
    about: str
    run: Callable[[FuzzedData], None]
    named: tuple[type[Exception], ...]
    heavy: bool = False


@dataclass(frozen=True)
class Defect:
    """A case that broke a promise. ``where`` tells it from others: the error's type and the line of ours it came
    from."""

    where: str
    what: str
    case: str  # hex


def judge(target: Target, case: bytes) -> Defect | None:
    """Run a case; what it broke, or None."""
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    found: tuple[str, str] | None = None
    try:
        target.run(FuzzedData(case))
    except target.named as error:
        if len(str(error)) > 4000:
            found = f"long message {_line(error)}", f"a message of {len(str(error))} characters"
        elif printable(str(error)) != str(error):
            found = f"message {_line(error)}", "a message with characters that steer a terminal or cannot be encoded"
    except Broken as error:
        found = f"Broken {_line(error)}", str(error)
    except Exception as error:
        found = f"{type(error).__name__} {_line(error)}", str(error)[:300]
    seconds = time.monotonic() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    if found is None and seconds > SLOW_S:
        found = "slow", f"took {seconds:.1f} s"
    if found is None and grown > GROWTH_MB:
        found = "memory", f"the process grew by {grown:.0f} MB"
    return Defect(*found, case.hex()) if found else None


def _line(error: BaseException) -> str:
    """The last line of this repository that the error passed."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if f.filename.startswith(str(ROOT)) and ".venv" not in f.filename] or frames
    last = next((f for f in reversed(ours) if "/fuzz/" not in f.filename), ours[-1])
    return f"{Path(last.filename).name}:{last.lineno}"
