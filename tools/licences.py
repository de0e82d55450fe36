"""Write docs/licences.md: the licence of every wheel in requirements/constraints.txt, as its metadata say.

Run it with the environment's own Python after a change of the constraints: ``.venv/bin/python tools/licences.py``.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from importlib.metadata import PackageNotFoundError, files, metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "licences.md"
CONSTRAINTS = ROOT / "requirements" / "constraints.txt"
PERMISSIVE, WEAK, STRONG, UNKNOWN = "permissive", "weak copyleft", "strong copyleft", "not stated"
# Matched in this order against the licence as stated: "LGPL" holds "GPL", and a choice of licences lets one choose.
KINDS = (
    (WEAK, r"\bLGPL|LESSER GENERAL PUBLIC|\bMPL|MOZILLA PUBLIC|\bEPL\b|ECLIPSE PUBLIC"),
    (STRONG, r"\bA?GPL|GNU (AFFERO )?GENERAL PUBLIC"),
    (
        PERMISSIVE,
        r"APACHE|\bMIT|BSD|\bISC\b|\bPSF|PYTHON SOFTWARE|UNLICENSE|\bZLIB|\bHPND|\bCNRI|PUBLIC DOMAIN|CC0|BOOST"
        r"|ANY-OSI|NOTHING INSIDE",
    ),
)
# Wheels whose metadata name no licence, looked up in the LICENSE that they carry.
LOOKED_UP = {"ros-fastcdr": "Apache-2.0", "ros-fastdds": "Apache-2.0"}
HEADER = """\
# Licences

acs is under Apache-2.0. It contains no other project's code; what it needs is installed beside it by pip or by a ROS
distribution, under licences of its own. Nothing below is bundled.

What is bundled: the sprites of the [rendered world](rendered_world.md), each folder of
`training/assets/sprites` with its licence text (`noto` and `clutter`: Noto Color Emoji, SIL Open Font License 1.1;
`fluent`: Fluent Emoji, MIT). Weights, bags and sample pictures were made by this repository's own commands from them.

Copyleft licences bind who changes or passes on those packages themselves; they are listed apart, so that none comes in
unseen (a test compares). {count} wheels, written by `tools/licences.py` from their metadata:
"""


def pinned(constraints: Path = CONSTRAINTS) -> dict[str, str]:
    """Name and version of every pin."""
    lines = [line for line in constraints.read_text().splitlines() if line and not line.startswith("#")]
    return {name: version for name, _, version in (line.partition("==") for line in lines)}


def stated(name: str) -> str:
    """The licence that the metadata of an installed wheel state, in one short line; "" where they state none."""
    try:
        about = metadata(name)
    except PackageNotFoundError:
        return ""
    classified = [c.rpartition("::")[2].strip() for c in about.get_all("Classifier", []) if c.startswith("License ::")]
    free = next(
        (line.strip() for line in (str(about["License"]) if "License" in about else "").splitlines() if line.strip()),
        "",
    )
    if name.startswith("ros-kilted-"):
        return "nothing inside: stands for the wheel without kilted in its name"
    if name.startswith("ros-"):  # their metadata name none; the package.xml inside does
        return ", ".join(sorted(_of_package_xml(name)))
    expression = str(about["License-Expression"]) if "License-Expression" in about else ""
    named = expression or ", ".join(c for c in classified if c != "OSI Approved") or free
    return re.sub(r"\s+", " ", named)[:80].replace("|", "/")


def _of_package_xml(name: str) -> set[str]:
    found = [path for path in files(name) or [] if path.name == "package.xml"]
    return {element.text or "" for path in found for element in ET.parse(path.locate()).iter("license")}


def kind_of(licence: str) -> str:
    """Permissive, weak copyleft, strong copyleft, or not stated."""
    return next((kind for kind, pattern in KINDS if re.search(pattern, licence.upper())), UNKNOWN)


def page(pins: dict[str, str]) -> str:
    """The document."""
    groups: dict[str, list[str]] = {kind: [] for kind in (PERMISSIVE, WEAK, STRONG, UNKNOWN)}
    for name, version in pins.items():
        licence = LOOKED_UP.get(name) or stated(name)
        groups[kind_of(licence)].append(f"| {name} | {version} | {licence or '?'} |")
    parts = [HEADER.format(count=len(pins))]
    for kind, rows in groups.items():
        if rows:
            parts += [f"## {kind.capitalize()}", "", "| package | version | licence |", "|---|---|---|", *rows, ""]
    return "\n".join(parts)


def main() -> None:
    """Write the file and say what it holds."""
    pins = pinned()
    TARGET.write_text(page(pins))
    print(f"{TARGET.relative_to(ROOT)}: {len(pins)} wheels")


if __name__ == "__main__":
    main()
