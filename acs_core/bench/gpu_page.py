"""The results of ``make gpu-check`` as a page of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from acs_core.bench.gpu_check import PartResult
from acs_core.bench.markdown import table
from acs_core.bench.measure import MachineInfo
from acs_core.bench.whole import WAYS
from acs_core.output import marked_markdown

NO_GPU = "no GPU: nothing here was measured on one"
TITLES = {
    "whole": "Whole calls",
    "limits": "Limits of the hardware",
    "phrases": "Several phrases",
    "options": "Attention kernels, recorded vision tower",
    "text": "The language model alone",
    "ctranslate2": "CTranslate2",
}


def gpu_page(results: Sequence[PartResult], machine: MachineInfo, samples: int, seconds: float, command: str) -> str:
    """Return the page, with the mark of ``command``.

    Args:
        results: results of the parts.
        machine: the machine.
        samples: number of responses N.
        seconds: time of the whole run.
        command: "acs-bench gpu-check".
    """
    lines = ["# Check on a GPU", ""]
    if not machine.gpu:
        lines += [
            f"**{NO_GPU}.** Small models ran on the CPU, to show that every part runs. The goals are for a GPU.",
            "",
        ]
    lines += [f"{machine.describe()}; N = {samples}; {seconds:.0f} s in all.", ""]
    goals = [goal.describe() for result in results for goal in result.goals]
    lines += ["## Goals", "", *table(("ratio", "goal", "measured", "in this run"), goals)]
    left_out = [(_name(r), r.left_out) for r in results if r.left_out]
    lines += ["", "## Left out", "", *(table(("part", "reason"), left_out) if left_out else ["Nothing."])]
    for kind, title in TITLES.items():
        for result in results:
            if result.kind == kind and not result.left_out:
                lines += ["", f"## {title}: {result.shape}, {result.frame}", "", *_body(result)]
    return marked_markdown("\n".join(lines) + "\n", command)


def _name(result: PartResult) -> str:
    return f"{TITLES[result.kind]}: {result.shape}, {result.frame}"


def _body(result: PartResult) -> list[str]:
    numbers = result.found.numbers
    if result.kind == "limits":
        return list(table(("", ""), _limits(numbers)))
    if result.kind == "options":
        return list(table(("", "option", f"N = {numbers['samples']}"), _options(numbers["rows"])))
    if result.kind == "phrases":
        return [
            f"{numbers['phrases']} phrases of {numbers['samples']} responses: {numbers['together_s']:.3g} s in one "
            f"call, {numbers['apart_s']:.3g} s in {numbers['phrases']} calls, {numbers['ratio']:.2f} of it. "
            f"{numbers['same_responses']} of {numbers['phrases'] * numbers['samples']} responses are the same."
        ]
    stages = numbers["stages_ms"]
    return [
        f"{numbers['image_tokens']} image tokens of a prompt of {numbers['prompt_tokens']}, {numbers['new_tokens']} "
        f"tokens a response, {numbers['weights_mb']:.0f} MB of weights.",
        "",
        *table(("way", "N", "seconds", "tokens/s", "added memory, MB"), whole_cells(numbers["rows"])),
        "",
        *table(("ratio", ""), [(name, f"{value:.3g}") for name, value in numbers["ratios"].items()]),
        *(["", "(e) by stage: " + ", ".join(f"{k} {v:.1f} ms" for k, v in stages.items()) + "."] if stages else []),
    ]


def whole_cells(rows: Iterable[dict[str, Any]]) -> list[tuple[str, str, str, str, str]]:
    """Return the cells of a table of :class:`acs_core.bench.whole.WholeRow`, as JSON values: way, N, seconds, tokens a
    second, memory. Where nothing was measured, the reason stands in place of the seconds."""
    cells = []
    for row in rows:
        name, n = f"({row['way']}) {WAYS[row['way']]}", str(1 if row["way"] == "c" else row["samples"])
        if row["seconds"] is None:
            cells.append((name, n, row["note"], "-", "-"))
            continue
        memory = "-" if row["added_mb"] is None else f"{row['added_mb']:.0f}"
        cells.append((name, n, f"{row['seconds']:.3g}", f"{row['tokens_per_s']:.0f}", memory))
    return cells


def _limits(numbers: dict[str, Any]) -> list[tuple[str, str]]:
    memory = "unknown" if numbers["peak_mb"] is None else f"{numbers['peak_mb']:.0f} MB"
    return [
        ("a decode step", f"{numbers['step_ms']:.3g} ms"),
        (f"reading the weights at {numbers['bandwidth_gb_s']:.0f} GB/s", f"{numbers['floor_ms']:.3g} ms"),
        ("its matrix products alone", f"{numbers['linear_ms']:.3g} ms"),
        ("step / reading the weights", f"{numbers['step / floor']:.2f}"),
        ("step / matrix products", f"{numbers['step / linear layers']:.2f}"),
        (f"N = {numbers['samples']} / N = 1", f"{numbers['N samples / one']:.2f}"),
        ("attention and selection", f"{numbers['looking_share']:.1%} of the call"),
        ("added memory", f"{memory}, weights {numbers['weights_mb']:.0f} MB"),
    ]


def _options(rows: Iterable[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [
        (row["option"], row["setting"], row["note"] if row["ms"] is None else f"{row['ms']:.3g} ms") for row in rows
    ]
