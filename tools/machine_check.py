"""Checks of the machine before the set-up creates anything."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PYTHONS = ((3, 11), (3, 12))
FREE_BYTES = 5 * 10**9  # the environment takes 2 GB, the downloads about as much


@dataclass(frozen=True)
class Problem:
    """A missing requirement.

    Attributes:
        what: description.
        package: Debian package that provides it; "" if there is none.
        advice: what to do if there is no package.
    """

    what: str
    package: str = ""
    advice: str = ""


@dataclass(frozen=True)
class HostState:
    """Properties of the machine that are checked; :func:`this_machine` reads them."""

    system: str
    arch: str
    python: tuple[int, int]
    has_venv: bool
    has_headers: bool
    cxx: str | None
    make: str | None
    free_bytes: int


def this_machine(folder: Path, environ: Mapping[str, str] = os.environ) -> HostState:
    """Return the state of this machine; ``folder`` is where the environment will be created."""
    path = environ.get("PATH", os.defpath)
    parent = next(p for p in (folder, *folder.parents) if p.exists())
    return HostState(
        system=platform.system(),
        arch=platform.machine(),
        python=(sys.version_info.major, sys.version_info.minor),
        # Debian packages ensurepip separately: without it venv can be imported, but fails half-way.
        has_venv=all(importlib.util.find_spec(name) is not None for name in ("venv", "ensurepip")),
        has_headers=(Path(sysconfig.get_path("include")) / "Python.h").exists(),
        cxx=shutil.which(environ.get("CXX") or "g++", path=path),
        make=shutil.which("make", path=path),
        free_bytes=shutil.disk_usage(parent).free,
    )


def problems(machine: HostState) -> list[Problem]:
    """Return everything that would make the set-up fail later."""
    version = "{}.{}".format(*machine.python)
    supported = " or ".join("{}.{}".format(*p) for p in PYTHONS)
    found = []
    if (machine.system, machine.arch) != ("Linux", "x86_64"):
        found.append(
            Problem(
                f"this is {machine.system} on {machine.arch}",
                advice="the ROS wheels are for Linux on x86-64: use such a machine or container",
            )
        )
    if machine.python not in PYTHONS:
        found.append(
            Problem(f"this Python is {version}", advice=f"use Python {supported}: PYTHON=/path/to/python3.12 make env")
        )
    if not machine.has_venv:
        found.append(Problem("Python has no venv and ensurepip", package=f"python{version}-venv"))
    if not machine.has_headers:
        found.append(Problem("Python has no C headers (Python.h)", package=f"python{version}-dev"))
    if machine.cxx is None:
        found.append(Problem("no C++ compiler (g++)", package="g++"))
    if machine.make is None:
        found.append(Problem("no make", package="make"))
    if machine.free_bytes < FREE_BYTES:
        free, needed = machine.free_bytes / 1e9, FREE_BYTES / 1e9
        found.append(Problem(f"{free:.1f} GB of disk are free", advice=f"free {needed:.0f} GB"))
    return found


def one_line(found: list[Problem]) -> str:
    """Return all problems and their remedies on one line, e.g. ``no C++ compiler (g++): sudo apt install g++``."""
    remedies = [p.advice for p in found if p.advice]
    packages = [p.package for p in found if p.package]
    if packages:
        remedies.append(f"sudo apt install {' '.join(packages)} (Debian, Ubuntu)")
    return f"{', '.join(p.what for p in found)}: {'; '.join(remedies)}"
