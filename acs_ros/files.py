"""Where the shipped files are: in a checkout, in a pip environment, or in a colcon install."""

from __future__ import annotations

import sys
from pathlib import Path

from ament_index_python.packages import get_package_share_directory


def shipped_file(name: str) -> Path:
    """A file of ``config/`` or ``launch/``, like ``config/tiny_internvl.yaml``.

    Raises:
        FileNotFoundError: the package was installed without it; says where it was looked for.
    """
    workspace = _share_in_workspace("acs_ros") or Path("(acs_ros is in no sourced workspace)")
    places = [Path(__file__).resolve().parents[1], Path(sys.prefix) / "share" / "acs_ros", workspace]
    for place in places:
        if (place / name).is_file():
            return place / name
    raise FileNotFoundError(f"{name} is in none of {', '.join(map(str, places))}: install acs_ros again")


def interface_files(package: str) -> list[Path]:
    """The ``.msg`` files of an installed interface package.

    Raises:
        FileNotFoundError: the package is not installed, or without its sources.
    """
    workspace = _share_in_workspace(package)
    places = [*([workspace] if workspace else []), Path(sys.prefix) / "share" / package]
    for place in places:
        if found := sorted((place / "msg").glob("*.msg")):
            return found
    raise FileNotFoundError(f"no .msg files of {package} in {', '.join(map(str, places))}: install {package}")


def _share_in_workspace(package: str) -> Path | None:
    """The package's share folder in a sourced workspace; None where none is sourced, or it lacks the package."""
    try:
        return Path(get_package_share_directory(package))
    except (OSError, LookupError, ValueError):
        return None
