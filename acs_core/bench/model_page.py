"""The report on a model (:mod:`acs_core.bench.check_model`) as a page of Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from acs_core.bench.check_model import ModelCheck, ModelReport
from acs_core.bench.markdown import cell, table
from acs_core.output import marked_markdown


def model_page(report: ModelReport, command: str) -> str:
    """Return the report as Markdown, with the mark of ``command`` ("acs-bench check-model")."""
    model = report.model
    lines = [
        f"# Report on {cell(model['name'])}",
        "",
        f"Revision {cell(model['revision'] or 'unknown')}, family {model['family']}, {model['layers']} layers of "
        f"{model['heads']} heads, {model['weights_mb']:,} MB of weights in {model['dtype']} on {model['device']}; "
        f"max_image_tokens {model['max_image_tokens']}, coordinate_frame {model['coordinate_frame']}.",
        "",
        f"{report.machine.describe()}.",
        "",
        *table(("check", "verdict", "result"), [(c.name, c.verdict, c.said) for c in report.checks]),
    ]
    for check in report.checks:
        lines += _details(check)
    return marked_markdown("\n".join(lines) + "\n", command)


def _details(check: ModelCheck) -> list[str]:
    numbers = check.numbers
    if check.name == "coordinate frame" and numbers:
        fits = [(f["frame"], f"{f['mean_iou']:.3f}", f"{f['hits']:.0%}") for f in numbers["fits"]]
        answers = [
            (_size(a["image_size"]), _size(a["input_size"]), a["truth"], a["values"] or "none", a["text"])
            for a in numbers["answers"]
        ]
        return [
            "",
            "## Coordinate frames",
            "",
            *table(("frame", "mean IoU", "IoU >= 0.5"), fits),
            "",
            *table(("picture", "resized", "object, in pixels", "numbers of the answer", "answer"), answers),
        ]
    if check.name == "speed" and numbers:
        rows = [
            (
                row["frame"],
                _size(row["input_size"]),
                row["image_tokens"],
                f"{row['reading_ms']:.0f}",
                f"{row['seconds']:.2f}",
                "unknown" if row["added_mb"] is None else f"{row['added_mb']:.0f}",
            )
            for row in numbers["rows"]
        ]
        columns = ("picture", "resized", "image tokens", "prefill, ms", "call, s", "added memory, MB")
        return ["", "## Speed", "", *table(columns, rows)]
    if check.name == "picture budget" and numbers:
        sizes = [(row["frame"], _size(row["input_size"]), row["image_tokens"]) for row in numbers["rows"]]
        return ["", "## Picture budget", "", *table(("picture", "resized", "image tokens"), sizes)]
    return []


def _size(size: Sequence[int] | None) -> str:
    return "unknown" if size is None else f"{size[0]} x {size[1]}"
