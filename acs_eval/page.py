"""The report: one HTML file with tables, charts and pictures that needs nothing else, neither network nor files."""

from __future__ import annotations

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from acs_core.geometry import Box
from acs_eval.cases import SHARES, Case, Cases, choose_cases
from acs_eval.chart import Chart, Drawing
from acs_eval.charts import charts_of, colours_of, entropy_charts
from acs_eval.headline import Headline, headlines_of
from acs_eval.overview import overview_table
from acs_eval.pictures import Reader, Thumbnail, thumbnail
from acs_eval.table import Table, interval, written
from acs_eval.tables import Assessed, further_tables, main_tables

ASSETS = Path(__file__).parent / "assets"
PICTURES = 120
WORDS = {
    True: {
        "won": "ours right, greedy wrong",
        "lost": "greedy right, ours wrong",
        "wrong": "both wrong",
        "right": "both right",
    },
    False: {"won": "", "lost": "", "wrong": "wrong", "right": "right"},
}


@dataclass(frozen=True)
class Shown:
    """A case with its picture, and the part of the picture that holds its boxes (x, y, width, height)."""

    case: Case
    picture: Thumbnail
    zoom: tuple[float, float, float, float]


@dataclass(frozen=True)
class Section:
    """What the page says of one evaluation."""

    title: str
    facts: Mapping[str, str]
    headlines: Sequence[Headline]
    main: Sequence[Table]
    charts: Sequence[tuple[str, Sequence[Chart]]]
    more: Sequence[Table]
    shown: Sequence[Shown]
    totals: Mapping[str, int]
    words: Mapping[str, str]
    categories: Sequence[tuple[str, int]]
    groups: Sequence[str]


def write_page(
    assessed: Sequence[Assessed],
    file: Path,
    read: Reader,
    title: str = "",
    pictures: int = PICTURES,
    choose: Callable[[Assessed, int], int | None] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Writes the report of one evaluation or several into ``file``.

    Args:
        read: gives the picture, (H, W, 3) uint8 RGB, of a :attr:`Question.image`; what it cannot read is shown as such.
        title: of the page; by default that of the evaluations.
        pictures: how many questions are shown with their picture, in all.
        choose: gives the run of an evaluation's group, by its number, to show beside greedy; by default the best.
        progress: called with the pictures done and all.

    Raises:
        OSError: the file cannot be written.
    """
    share = max(1, pictures // max(1, sum(len(a.measured) for a in assessed))) if pictures else 0
    chosen = [
        [choose_cases(m, share, choose(a, g) if choose else None) for g, m in enumerate(a.measured)] for a in assessed
    ]
    total, done = sum(len(cases.shown) for several in chosen for cases in several), 0
    colours = colours_of([a.evaluation for a in assessed])
    sections = []
    for a, several in zip(assessed, chosen, strict=True):
        shown = []
        for case in (case for cases in several for case in cases.shown):
            shown.append(Shown(case, thumbnail(read, case.question.image), zoom(case)))
            done += 1
            progress(done, total)
        sections.append(_section(a, several, shown, colours))
    overview = overview_table(assessed)
    script = (ASSETS / "report.js").read_text(encoding="utf-8")
    text = (
        _environment()
        .get_template("report.html.jinja")
        .render(
            title=title or (assessed[0].evaluation.title if len(assessed) == 1 else "Evaluations side by side"),
            sections=sections,
            overview=overview,
            style=(ASSETS / "report.css").read_text(encoding="utf-8"),
            script=script,
            # Only this very script may run: whatever text of the data ends up where, it cannot.
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
            drawing=Drawing,
        )
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def zoom(case: Case) -> tuple[float, float, float, float]:
    """The part of the picture around all boxes of a case, of the picture's own shape: twice as wide and high as the
    boxes, and no less than a tenth of the picture."""
    width, height = (max(1, side) for side in case.question.image_size)
    drawn = (*case.question.truth, *(box for panel in case.panels for box in panel.boxes))
    boxes = [inside for box in drawn if (inside := box.clip(width, height))]
    if not boxes:
        return 0.0, 0.0, float(width), float(height)
    x1, y1 = min(b.x1 for b in boxes), min(b.y1 for b in boxes)
    x2, y2 = max(b.x2 for b in boxes), max(b.y2 for b in boxes)
    part = min(1.0, max(0.1, 2 * (x2 - x1) / width, 2 * (y2 - y1) / height))
    left = min(max(0.0, (x1 + x2 - part * width) / 2), (1 - part) * width)
    top = min(max(0.0, (y1 + y2 - part * height) / 2), (1 - part) * height)
    return tuple(round(v, 2) for v in (left, top, part * width, part * height))  # type: ignore[return-value]


def _section(a: Assessed, several: Sequence[Cases], shown: Sequence[Shown], colours: Mapping[str, int]) -> Section:
    charts: list[tuple[str, Sequence[Chart]]] = [(m.group.name, charts_of(m, colours)) for m in a.measured]
    charts.append(("", entropy_charts(a.evaluation)))
    totals = {name: sum(cases.totals[name] for cases in several) for name in SHARES}
    categories = Counter(s.case.question.category for s in shown)
    return Section(
        a.evaluation.title,
        a.evaluation.facts,
        headlines_of(a),
        main_tables(a),
        [(name, found) for name, found in charts if found],
        further_tables(a),
        shown,
        totals,
        WORDS[any(cases.compared for cases in several)],
        sorted(categories.items()),
        list(dict.fromkeys(s.case.group for s in shown)),
    )


@cache
def _environment() -> Environment:
    env = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.globals |= {"written": written, "interval": interval}
    env.filters["points"] = _coordinates
    return env


def _coordinates(box: Box, case: Case) -> dict[str, Any]:
    """The box as attributes of SVG's rect, cut to what numbers SVG can draw."""
    limit = 10.0 * max(*case.question.image_size, 1)
    x1, y1, x2, y2 = (min(max(v, -limit), limit) if math.isfinite(v) else 0.0 for v in box.as_tuple())
    return {
        "x": round(x1, 2),
        "y": round(y1, 2),
        "width": round(max(0.0, x2 - x1), 2),
        "height": round(max(0.0, y2 - y1), 2),
    }
