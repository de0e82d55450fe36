"""The installed cv_bridge, if it can be used.

cv_bridge has a compiled part. Built against another OpenCV than the one that is installed beside it (the numbers of the
pixel types differ between OpenCV 4 and 5) or against numpy 1, it fails at the first image, or ends the process. So a
process of its own tries it first (:mod:`acs_ros.conversions.bridge_check`), and only a cv_bridge that passes is
imported.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

CHECK_TIMEOUT_S = 60.0
RESULT = "bridge_check: "  # begins the line of the trial's result, a JSON object
NUMPY_1 = "compiled using NumPy 1.x"
BAYER = tuple(f"bayer_{pattern}" for pattern in ("rggb", "bggr", "gbrg", "grbg"))
# The encodings that cv_bridge converts to rgb8; older releases know fewer. The typed ones (8UC3) name no colours to it.
BRIDGED_ENCODINGS = frozenset(
    f"{name}{bits}" for name in ("rgb", "bgr", "rgba", "bgra", "mono", *BAYER) for bits in (8, 16)
) | {"yuv422", "yuv422_yuy2"}


@dataclass(frozen=True)
class BridgeState:
    """Whether cv_bridge is used.

    Attributes:
        installed: Whether a package of this name is found.
        encodings: Encodings that it converts to the pixels that acs decodes.
        problem: Why it cannot be used, or what of it, although it is installed; empty otherwise.
    """

    installed: bool
    encodings: frozenset[str] = frozenset()
    problem: str = ""

    @property
    def note(self) -> str:
        """The problem and what follows from it, for the log; empty without one."""
        if not self.problem:
            return ""
        extent = "not for every encoding that it should know" if self.encodings else "but cannot be used"
        return f"cv_bridge is installed, {extent}: {self.problem}; acs decodes these images itself"


@functools.cache
def bridge_state() -> BridgeState:
    """Try the installed cv_bridge in a process of its own; once, which takes a second where it is installed."""
    if importlib.util.find_spec("cv_bridge") is None:
        return BridgeState(False)
    return _tried()


@functools.cache
def usable_bridge() -> Any:
    """Return a ``cv_bridge.CvBridge``, or None where there is none that can be used."""
    if not bridge_state().encodings:
        return None
    from cv_bridge import CvBridge

    return CvBridge()


def _tried() -> BridgeState:
    paths = os.pathsep.join(path or os.curdir for path in sys.path)
    command = [sys.executable, "-m", "acs_ros.conversions.bridge_check"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=CHECK_TIMEOUT_S,
            env={**os.environ, "PYTHONPATH": paths},
        )
    except subprocess.TimeoutExpired:
        return BridgeState(True, problem=f"a trial of it did not end within {CHECK_TIMEOUT_S:g} s")
    except OSError as error:
        return BridgeState(True, problem=f"it could not be tried: {error}")
    found = [line.removeprefix(RESULT) for line in done.stdout.splitlines() if line.startswith(RESULT)]
    if done.returncode == 0 and found:
        result = json.loads(found[-1])
        return BridgeState(True, frozenset(result["encodings"]), result["problem"])
    how = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit code {done.returncode}"
    # numpy 2 writes a long text about modules built against numpy 1, which then end the process sooner or later.
    why = "it was built against numpy 1, and numpy 2 is installed: " if NUMPY_1 in done.stderr else ""
    return BridgeState(True, problem=f"{why}a trial of it ended with {how}")
