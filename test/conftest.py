"""For all tests: ROS stays on this machine, camera-sized messages get through, and torch keeps to one thread.

One thread, because small models gain nothing from more, and several processes with as many threads as cores each wait
for one another most of the time.

The variables are set here, before any test imports rclpy; ``make test`` sets the same.

Programs that the tests start hear Ctrl-C, also where a shell runs the tests in its background, which makes them deaf.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ.setdefault("FASTDDS_DEFAULT_PROFILES_FILE", str(ROOT / "config" / "fastdds_profile.xml"))
# What commands print is compared as plain text.
for name in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS"):
    os.environ.pop(name, None)
signal.signal(signal.SIGINT, signal.default_int_handler)
# Nothing is timed, and a run is like the next; make fuzz looks for what is new.
settings.register_profile("acs", deadline=None, derandomize=True)
settings.load_profile("acs")


@pytest.fixture(scope="session")
def repo() -> Path:
    """The top folder of the working tree."""
    return ROOT
