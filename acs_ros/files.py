"""Paths of the shipped files in a checkout, a pip environment or a colcon install."""

from __future__ import annotations

import sys
from pathlib import Path

from ament_index_python.packages import get_package_share_directory


def shipped_file(name: str) -> Path:
    """Path of a file of ``config/`` or ``launch/``, for example ``config/tiny_qwen2_5_vl.yaml``.

    Raises:
        FileNotFoundError: the package was installed without the file; names the folders that were searched.
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
    """Share folder of the package in a sourced workspace; None if none is sourced, or none with the package."""
    try:
        return Path(get_package_share_directory(package))
    except (OSError, LookupError, ValueError):
        return None
