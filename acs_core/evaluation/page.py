"""The HTML report: one self-contained file with tables, charts and thumbnails, which loads nothing else."""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from acs_core.errors import ImageError
from acs_core.evaluation.cases import PICTURES, SHARES, Case, Cases, choose_cases
from acs_core.evaluation.chart import Chart, Drawing
from acs_core.evaluation.charts import charts_of, colours_of, entropy_charts
from acs_core.evaluation.metrics import GroupMetrics
from acs_core.evaluation.overview import LAYERS, overview_tables
from acs_core.evaluation.rows import counted, label
from acs_core.evaluation.table import Table, cut, interval, written
from acs_core.evaluation.tables import Assessed, further_tables, main_tables
from acs_core.geometry import Box
from acs_core.image import read_image
from acs_core.output import write_text
from acs_core.plain_text import printable

ASSETS = Path(__file__).parent / "assets"
WORDS = {
    True: {
        "won": "ours right, greedy wrong",
        "lost": "greedy right, ours wrong",
        "wrong": "both wrong",
        "right": "both right",
    },
    False: {"won": "", "lost": "", "wrong": "wrong", "right": "right"},
}
SIDE, QUALITY = 480, 72  # of thumbnails: longest side in pixels, WebP quality
Reader = Callable[[str], np.ndarray]


@dataclass(frozen=True)
class Shown:
    """A case with its thumbnail and the region of the image to zoom to, (x, y, width, height) in pixels."""

    case: Case
    picture: Thumbnail
    zoom: tuple[float, float, float, float]


@dataclass(frozen=True)
class Section:
    """Contents of the report for one evaluation."""

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
    """Write the report of one or several evaluations to ``file``.

    Args:
        assessed: the evaluations with their metrics.
        file: path of the HTML file; missing parent folders are created.
        read: returns the image, (H, W, 3) uint8 RGB, for a :attr:`Question.image`. If it fails, the report shows the
            error in place of the image.
        title: title of the page; by default that of the evaluation.
        pictures: total number of questions to show with their image.
        choose: returns the index of the run to show beside greedy, given the evaluation and the index of the group; by
            default the best.
        progress: called with the number of finished thumbnails and their total.

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
    merged = {LAYERS} if len(assessed) > 1 else set()
    for a, several in zip(assessed, chosen, strict=True):
        shown = []
        for case in (case for cases in several for case in cases.shown):
            shown.append(Shown(case, thumbnail(read, case.question.image), zoom(case)))
            done += 1
            progress(done, total)
        sections.append(_section(a, several, shown, colours, merged))
    overview = overview_tables(assessed)
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
            # For the content security policy: no script in the data can run, only this one.
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
            drawing=Drawing,
        )
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, text, guarded=True)


def zoom(case: Case) -> tuple[float, float, float, float]:
    """Return the region around all boxes of a case, (x, y, width, height) in pixels, with the aspect ratio of the
    image.

    The region is twice as wide and high as the boxes, and at least a tenth of the image per side.
    """
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


def _section(
    a: Assessed, several: Sequence[Cases], shown: Sequence[Shown], colours: Mapping[str, int], merged: Container[str]
) -> Section:
    charts: list[tuple[str, Sequence[Chart]]] = [(m.group.name, charts_of(m, colours)) for m in a.measured]
    charts.append(("", entropy_charts(a.evaluation)))
    totals = {name: sum(cases.totals[name] for cases in several) for name in SHARES}
    categories = Counter(s.case.question.category for s in shown)
    return Section(
        a.evaluation.title,
        a.evaluation.facts,
        headlines_of(a),
        [table for table in main_tables(a) if table.name not in merged],
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
        # Text from data may hold invisible characters, such as bidirectional overrides.
        finalize=lambda value: printable(value, "\t\r\n") if type(value) is str else value,
    )
    env.globals |= {"written": written, "interval": interval}
    env.filters["cut"] = cut
    env.filters["points"] = _coordinates
    return env


def _coordinates(box: Box, case: Case) -> dict[str, Any]:
    """Return the box as attributes of an SVG rect, clamped to numbers that SVG can draw."""
    limit = 10.0 * max(*case.question.image_size, 1)
    x1, y1, x2, y2 = (min(max(v, -limit), limit) if math.isfinite(v) else 0.0 for v in box.as_tuple())
    return {
        "x": round(x1, 2),
        "y": round(y1, 2),
        "width": round(max(0.0, x2 - x1), 2),
        "height": round(max(0.0, y2 - y1), 2),
    }


@dataclass(frozen=True)
class Thumbnail:
    """A thumbnail as a data URI, or the ``problem`` why there is none."""

    uri: str = ""
    problem: str = ""


def thumbnail(read: Reader, image: str, side: int = SIDE) -> Thumbnail:
    """Return the thumbnail of ``image``, its longer side at most ``side`` pixels; a read error goes into its
    ``problem``."""
    try:
        picture = Image.fromarray(read(image))
    except (ImageError, OSError, ValueError) as error:
        return Thumbnail(problem=str(error))
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=QUALITY, method=4)
    return Thumbnail("data:image/webp;base64," + base64.b64encode(out.getvalue()).decode("ascii"))


def reader_from(*folders: Path) -> Reader:
    """Return a function that reads image files; a relative path is searched for in each of ``folders``."""
    return partial(_read, folders)


def _read(folders: tuple[Path, ...], image: str) -> np.ndarray:
    places = [folder / image for folder in folders] or [Path(image)]
    return read_image(next((place for place in places if place.is_file()), places[0]))


@dataclass(frozen=True)
class Headline:
    """A key figure of the report.

    Attributes:
        title: text above the value.
        value: the figure.
        text: text below the value.
        kind: kind of the method, as in tables.
    """

    title: str
    value: str
    text: str
    kind: str = ""


def headlines_of(assessed: Assessed) -> list[Headline]:
    """Return the key figures of each group: greedy, and the best setting of each of our methods."""
    return [line for measured in assessed.measured for line in _of_group(measured, len(assessed.measured) > 1)]


def _of_group(measured: GroupMetrics, several: bool) -> Sequence[Headline]:
    name, single = ("Acc@0.5", True) if measured.outcomes.single else ("F1", False)
    where = f", {measured.group.name}" if several else ""
    lines = []
    shown = int(measured.outcomes.shown.sum())
    for r in measured.highlights:
        scores = measured.scores[r]
        value = scores.accuracy if single else scores.f1
        figure = f"{100 * value.value:.1f} %"
        if measured.few:
            # A percentage of four answers, or a p-value, would look like a finding.
            right = int(measured.outcomes.right[r][measured.outcomes.shown].sum())
            figure = f"{right} of {shown}" if single else figure
            text = f"{'right at IoU 0.5' if single else name}{where}; {counted(shown, 'question')}, too few to compare"
        else:
            text = f"{name}{where}; 95 % interval {100 * value.low:.1f} to {100 * value.high:.1f}"
        if single and not measured.few and r != measured.reference and scores.gain and measured.reference is not None:
            p = measured.against(r, measured.reference).mcnemar
            text += f"; {100 * scores.gain.value:+.1f} % on greedy, p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}"
        lines.append(Headline(label(scores.run), figure, text, scores.run.kind))
    return lines
