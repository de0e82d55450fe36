"""The lock files in requirements/locked: name, version and SHA-256 hashes of every installed package."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "requirements" / "locked"
ENVIRONMENT = FOLDER / "environment.txt"
# ROS distributions whose wheels can be installed beside ENVIRONMENT, each with its lock file. The first is the default.
DISTRIBUTIONS = {name: FOLDER / f"ros_{name}.txt" for name in ("kilted", "jazzy")}
SOURCES = FOLDER / "sources.txt"
TORCH_CPU = FOLDER / "torch_cpu.txt"
TORCH_GPU = FOLDER / "torch_gpu.txt"
# A lock file is complete, so pip need not resolve dependencies; installing a wheel runs none of its code.
WHEELS_ONLY = ("--require-hashes", "--no-deps", "--only-binary=:all:")
# Source distributions are built with the setuptools of environment.txt: an isolated build would download one without a
# hash.
BUILT_HERE = ("--require-hashes", "--no-deps", "--no-build-isolation")


@dataclass(frozen=True)
class Locked:
    """One package of a lock file; ``text`` is its part of the file: pin, hashes and comments."""

    name: str
    version: str
    hashes: frozenset[str]
    text: str


def parse(text: str) -> list[Locked]:
    """Return the packages of a lock file, in its order."""
    found = []
    for part in re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE):
        if pin := re.match(r"([\w.-]+)==(\S+)", part):
            hashes = frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})\b", part))
            found.append(Locked(normal(pin[1]), pin[2], hashes, part))
    return found


def read(*files: Path) -> dict[str, Locked]:
    """Return the packages of several lock files, by their normalised name."""
    return {package.name: package for file in files for package in parse(file.read_text())}


def normal(name: str) -> str:
    """Return the normalised name of a package: lower case, with hyphens."""
    return re.sub(r"[-_.]+", "-", name).lower()


def refusal(log: str) -> str | None:
    """Return one line about the files that pip refused for their hash; None if its output names none."""
    _, found, rest = log.rpartition("THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE")
    if not found:
        return None
    files = re.findall(r"^ {4}(\S+).*? from (\S+)", rest, flags=re.MULTILINE)
    got = re.findall(r"Got\s+([0-9a-f]{64})", rest)
    named = [f"{name} from {url.partition('#')[0]} has {sha}" for (name, url), sha in zip(files, got, strict=False)]
    return (
        f"refused: not the file that requirements/locked names by its SHA-256: {'; '.join(named) or 'see the log'}; "
        "nothing of it was installed. Get it from another place (PIP_INDEX_URL, PIP_FIND_LINKS)"
    )


def not_offered(log: str) -> bool:
    """Return whether pip's output says that no index and no folder has the requested version.

    Where the user's own constraints file names the package, pip reports a missing version as a conflict with it.
    """
    return "No matching distribution found for" in log or "The user requested (constraint)" in log
