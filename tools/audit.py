"""Ask the advisory database about every pinned wheel: ``audit.py PIP_AUDIT``, the path of a pip-audit.

Exit status 0: nothing is known against them. 1: something is, each with its number and the version that mends it.
3: the database cannot be reached, so nothing is known at all; that is not a pass.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CLEAN, FOUND, UNREACHABLE = 0, 1, 3
PROOF = "torch"  # is on every index: when the database does not know it, it was not asked


@dataclass(frozen=True)
class Verdict:
    """What a report says: an exit status, and lines for a person."""

    status: int
    lines: tuple[str, ...]


def judge(report: dict[str, Any]) -> Verdict:
    """The verdict of a pip-audit report (``--format json``)."""
    audited = {d["name"]: d for d in report.get("dependencies", []) if "skip_reason" not in d}
    if PROOF not in audited:
        return Verdict(UNREACHABLE, ("audit: skipped, the advisory database of PyPI cannot be reached from here",))
    found = [
        f"{d['name']} {d['version']}: {v['id']}, mended in {', '.join(v['fix_versions']) or 'no version yet'}"
        for d in audited.values()
        for v in d["vulns"]
    ]
    skipped = len(report["dependencies"]) - len(audited)
    summary = f"audit: {len(found)} advisories for {len(audited)} wheels; {skipped} are not on PyPI (those of ROS)"
    return Verdict(FOUND if found else CLEAN, (*found, summary))


def run(pip_audit: str, constraints: Path) -> dict[str, Any]:
    """The report about ``constraints``; an empty one where the database does not answer."""
    command = [pip_audit, "-r", str(constraints), "--no-deps", "--disable-pip", "-s", "pypi", "-f", "json"]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        return dict(json.loads(done.stdout))
    except ValueError:
        return {}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the verdict; its exit status."""
    names = list(sys.argv[1:] if arguments is None else arguments)
    if len(names) != 1:
        print("usage: audit.py PIP_AUDIT", file=sys.stderr)
        return 2
    verdict = judge(run(names[0], ROOT / "requirements" / "constraints.txt"))
    print("\n".join(verdict.lines))
    return verdict.status


if __name__ == "__main__":
    sys.exit(main())
