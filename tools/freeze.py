"""Write requirements/constraints.txt from the environment: the exact version of every wheel that pip put into it.

Run it with the environment's own Python after a change of the other files: ``.venv/bin/python tools/freeze.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path

HEADER = """\
# Every wheel of the environment, so that two set-ups are the same. Written by tools/freeze.py.
# Not listed is what only some machines need (GPU libraries of torch): their versions follow from torch's.
"""
UNPINNED = {"pip", "acs_ros", "atheris"}  # atheris: an option of `make fuzz`


def pins(installed: Iterable[Distribution]) -> list[str]:
    """``name==version`` of what pip installed from an index, sorted.

    Left out is what another wheel carries inside it (the Python parts of the ROS wheels: no INSTALLER record), and the
    local part of a version (``+cpu``): it names a build, and another index has another one.
    """
    found = set()
    for distribution in installed:
        name = distribution.metadata["Name"]
        installer = (distribution.read_text("INSTALLER") or "").strip()
        if installer == "pip" and name not in UNPINNED and not name.startswith("nvidia-"):
            found.add(f"{name}=={distribution.version.split('+')[0]}")
    return sorted(found, key=str.lower)


def main() -> None:
    """Write the file and say how many pins it has."""
    target = Path(__file__).resolve().parent.parent / "requirements" / "constraints.txt"
    lines = pins(distributions())
    target.write_text(HEADER + "\n".join(lines) + "\n")
    print(f"{target.name}: {len(lines)} pins from {sys.prefix}")


if __name__ == "__main__":
    main()
