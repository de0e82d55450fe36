"""The report on a model (:mod:`acs_core.bench.check_model`) as a page of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from acs_core.bench.check_model import ModelCheck, ModelReport
from acs_core.output import marked_markdown
from acs_core.plain_text import one_line

MAX_CELL = 300  # characters of a table cell: responses can be long


def model_page(report: ModelReport, command: str) -> str:
    """Return the report as Markdown, with the mark of ``command`` ("acs-bench check-model")."""
    model = report.model
    lines = [
        f"# Report on {_cell(model['name'])}",
        "",
        f"Revision {_cell(model['revision'] or 'unknown')}, family {model['family']}, {model['layers']} layers of "
        f"{model['heads']} heads, {model['weights_mb']:,} MB of weights in {model['dtype']} on {model['device']}; "
        f"max_image_tokens {model['max_image_tokens']}, coordinate_frame {model['coordinate_frame']}.",
        "",
        f"{report.machine.describe()}.",
        "",
        *_table(("check", "verdict", "result"), [(c.name, c.verdict, c.said) for c in report.checks]),
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
            *_table(("frame", "mean IoU", "IoU >= 0.5"), fits),
            "",
            *_table(("picture", "resized", "object, in pixels", "numbers of the answer", "answer"), answers),
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
        return ["", "## Speed", "", *_table(columns, rows)]
    if check.name == "picture budget" and numbers:
        sizes = [(row["frame"], _size(row["input_size"]), row["image_tokens"]) for row in numbers["rows"]]
        return ["", "## Picture budget", "", *_table(("picture", "resized", "image tokens"), sizes)]
    return []


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    written = ["| " + " | ".join(_cell(value) for value in row) + " |" for row in (columns, *rows)]
    return [written[0], "|" + "---|" * len(columns), *written[1:]]


def _cell(value: object) -> str:
    """Return a value as text of a table cell: model output is data, and must be neither a cell's end nor HTML."""
    text = one_line(str(value), MAX_CELL)
    for mark, escaped in (("\\", "\\\\"), ("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("`", "\\`"), ("[", "\\[")):
        text = text.replace(mark, escaped)
    return text


def _size(size: Sequence[int] | None) -> str:
    return "unknown" if size is None else f"{size[0]} x {size[1]}"
