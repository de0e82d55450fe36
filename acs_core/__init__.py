"""Phrase grounding: samples boxes from a vision-language model and selects the one that its attention supports best.

The public classes and functions are imported from here::

    from acs_core import Grounder, SamplingConfig, read_image

They are loaded on first access (PEP 562), so ``import acs_core`` imports neither torch nor NumPy. This package does not
import ROS.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if sys.version_info < (3, 11):  # noqa: UP036 - a source tree has no python_requires
    _FOUND = f"this is Python {sys.version_info[0]}.{sys.version_info[1]}"
    raise ImportError(f"acs needs Python 3.11 or later (ROS 2 Jazzy or later), {_FOUND}: see docs/robot_setups.md")

if TYPE_CHECKING:
    from acs_core.geometry import Box
    from acs_core.grounder import Grounder
    from acs_core.image import read_image
    from acs_core.types import Candidate, Detection, GroundingResult, SamplingConfig, ScoreKind, SecondLook

    __version__: str

__all__ = [
    "Box",
    "Candidate",
    "Detection",
    "Grounder",
    "GroundingResult",
    "SamplingConfig",
    "ScoreKind",
    "SecondLook",
    "__version__",
    "read_image",
]

# Threads that share a matrix product spin by default while they wait for one another. On a robot whose cores are busy
# with other programs, they spin for threads that are not running, and a call takes seconds instead of a tenth of one
# (`acs-bench busy`). OpenMP reads the variable when torch is loaded, so it must be set before.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_DISTRIBUTION = "acs_ros"  # the name in package.xml and setup.py


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = _version() if name == "__version__" else _public(name)
    globals()[name] = value  # later accesses do not call __getattr__
    return value


def _public(name: str) -> Any:
    """Import and return the public class or function ``name``."""
    if name == "Grounder":
        from acs_core.grounder import Grounder

        return Grounder
    if name == "read_image":
        from acs_core.image import read_image

        return read_image
    from acs_core import types

    return getattr(types, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    """Return the version in package.xml of a checkout, else of the installed distribution, else "unknown"."""
    # Imported late: the commands set up signal handling before imports that take time.
    from importlib import metadata
    from pathlib import Path
    from xml.etree import ElementTree

    manifest = Path(__file__).resolve().parent.parent / "package.xml"
    if manifest.is_file():  # first: another version may be installed besides the checkout
        return ElementTree.parse(manifest).findtext("version") or "unknown"
    try:
        return metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown"
