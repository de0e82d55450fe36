"""Print the coverage of a test run and the least covered modules: ``least_covered.py``, run by ``make test``.

It reads the data of ``pytest --cov``. Processes started by the tests (nodes, commands) are not traced, so the figures
are lower bounds.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coverage import Coverage
from coverage.exceptions import CoverageException

MODULES = 12  # printed


def summary(report: Mapping[str, Any], modules: int = MODULES) -> str:
    """Return the lines to print for a JSON report of coverage.py: the total, and the ``modules`` with the lowest
    coverage."""
    total = report["totals"]
    lines = [f"coverage: {total['percent_covered']:.1f} % of {total['num_statements']:,} statements; least covered:"]
    files = [(name, file["summary"]) for name, file in report["files"].items() if file["summary"]["missing_lines"]]
    for name, file in sorted(files, key=lambda item: (item[1]["percent_covered"], item[0]))[:modules]:
        missing, of = file["missing_lines"], file["num_statements"]
        lines.append(f"  {file['percent_covered']:5.1f} %  {name} ({missing} of {of} not run)")
    return "\n".join(lines)


def main() -> int:
    """Print the summary; return exit status 0, or 1 if there are no coverage data."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "coverage.json"
            coverage = Coverage(messages=False)
            coverage.load()
            coverage.json_report(outfile=str(file))
            print(summary(json.loads(file.read_text(encoding="utf-8"))))
    except CoverageException as error:
        print(f"least_covered: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
