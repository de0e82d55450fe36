"""Query the advisory database about every locked package: ``audit.py PIP_AUDIT``, the path of a pip-audit.

Exit status 0: there are no known advisories. 1: there are, each printed with its number and the fixed version. 3: the
database cannot be reached, which is not a pass.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from locked import DISTRIBUTIONS, ENVIRONMENT, FOLDER, SOURCES, TORCH_GPU

CLEAN, FOUND, UNREACHABLE = 0, 1, 3
INSTALLED_TOGETHER = (
    *((ENVIRONMENT, ros, SOURCES, TORCH_GPU) for ros in DISTRIBUTIONS.values()),
    *((FOLDER / name,) for name in ("audit.txt", "docs.txt", "fuzz.txt", "uv.txt")),
)
PROOF = "torch"  # known to the database; if it is missing from the reports, the database was not reached


@dataclass(frozen=True)
class AuditResult:
    """Exit status and output lines of an audit."""

    status: int
    lines: tuple[str, ...]


def judge(reports: Sequence[dict[str, Any]]) -> AuditResult:
    """Return the result for pip-audit reports (``--format json``); a report without dependencies has an ``error``."""
    listed = [dependency for report in reports for dependency in report.get("dependencies", [])]
    audited = [d for d in listed if "skip_reason" not in d]
    errors = [report.get("error", "") for report in reports if "dependencies" not in report]
    if errors or PROOF not in {d["name"] for d in audited}:
        said = "".join(f" ({error})" for error in dict.fromkeys(errors) if error)
        return AuditResult(UNREACHABLE, (f"audit: skipped, PyPI's advisory database gave no answer{said}",))
    found = [
        f"{d['name']} {d['version']}: {v['id']}, fixed in {', '.join(v['fix_versions']) or 'no version yet'}"
        for d in audited
        for v in d["vulns"]
    ]
    skipped = len(listed) - len(audited)
    summary = f"audit: {len(found)} advisories for {len(audited)} packages; {skipped} are not on PyPI (those of ROS)"
    return AuditResult(FOUND if found else CLEAN, (*dict.fromkeys(found), summary))


def run(pip_audit: str, *files: Path) -> dict[str, Any]:
    """Return the report about lock files that are installed together; without ``dependencies`` if there is no
    answer."""
    named = [part for file in files for part in ("-r", str(file))]
    command = [pip_audit, *named, "--no-deps", "--disable-pip", "-s", "pypi", "-f", "json"]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        return dict(json.loads(done.stdout))
    except ValueError:
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1][:200]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the result and return its exit status."""
    names = list(sys.argv[1:] if arguments is None else arguments)
    if len(names) != 1:
        print("usage: audit.py PIP_AUDIT", file=sys.stderr)
        return 2
    verdict = judge([run(names[0], *files) for files in INSTALLED_TOGETHER])
    print("\n".join(verdict.lines))
    return verdict.status


if __name__ == "__main__":
    sys.exit(main())
