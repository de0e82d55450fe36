"""The Fast DDS profile that lets camera images through.

Fast DDS's default shared-memory segment is smaller than a VGA frame, so best-effort images get lost. The shipped
profile widens it; it must be named in the environment before the first node of a process is made.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path

from acs_ros.files import shipped_file

PROFILE_VARIABLE = "FASTDDS_DEFAULT_PROFILES_FILE"


def profile_path() -> Path:
    """The shipped Fast DDS profile."""
    return shipped_file("config/fastdds_profile.xml")


def apply_profile(env: MutableMapping[str, str] | None = None) -> str:
    """Name the shipped profile in ``env`` (default: this process) unless the user named one; the file in force."""
    target = os.environ if env is None else env
    return target.setdefault(PROFILE_VARIABLE, str(profile_path()))
