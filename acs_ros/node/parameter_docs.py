"""Writes the table of parameters into the documentation: ``python -m acs_ros.node.parameter_docs docs/node.md``."""

from __future__ import annotations

if __name__ == "__main__":  # first: a signal may come while the modules below are imported
    from acs_core.entry import run

    run("acs_ros.node.parameter_docs", "parameter_docs")

import sys
from collections.abc import Sequence
from pathlib import Path

from acs_core.terminal import print_error
from acs_ros.node.parameter_table import GROUPS, ParameterSpec

BEGIN = "<!-- parameters: written by python -m acs_ros.node.parameter_docs docs/node.md -->"
END = "<!-- end of parameters -->"


def parameter_tables() -> str:
    """Markdown: a table for each group of parameters."""
    parts = []
    for group, specs in GROUPS.items():
        parts += [f"### {group}", "", "| parameter | type | default | range | changes | |", "|---|---|---|---|---|---|"]
        parts += [_row(spec) for spec in specs]
        parts.append("")
    return "\n".join(parts)


def _row(spec: ParameterSpec) -> str:
    default = str(spec.default).lower() if isinstance(spec.default, bool) else str(spec.default)
    shown = f"`{default}`" if default else "empty"
    if spec.choices:
        allowed = ", ".join(f"`{choice}`" for choice in spec.choices)
    elif spec.low is not None and spec.high is not None:
        allowed = f"{spec.limit(spec.low)} to {spec.limit(spec.high)}"
    else:
        allowed = ""
    when = "any time" if spec.live else "unconfigured"
    return f"| `{spec.name}` | {spec.type_name} | {shown} | {allowed} | {when} | {spec.description} |"


def renewed(text: str) -> str:
    """``text`` with the tables between the two marks as the code has them now.

    Raises:
        ValueError: a mark is missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the lines {BEGIN!r} and {END!r} must both be in the file")
    return f"{before}{BEGIN}\n\n{parameter_tables()}\n{END}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Renew the files; the exit code."""
    names = list(sys.argv[1:] if arguments is None else arguments)
    if not names:
        print("usage: python -m acs_ros.node.parameter_docs FILE...", file=sys.stderr)
        return 2
    for name in names:
        path = Path(name)
        try:
            path.write_text(renewed(path.read_text()))
        except (OSError, ValueError) as error:
            print_error("parameter_docs", f"{name}: {error}")
            return 1
    return 0
