"""Cost over the number of samples, of image tokens and of phrases, as a table of points and a plot."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acs_core.bench.engine import WAYS, compare
from acs_core.bench.phrases import compare_phrases
from acs_core.bench.subject import Subject
from acs_core.output import write_bytes

USUAL_SAMPLES = 10
PHRASES = (1, 2, 4, 8)
_COLOURS = {"a": "#999999", "b": "#d95f02", "c": "#7570b3", "d": "#66a61e", "e": "#1b9e77"}


@dataclass(frozen=True)
class Point:
    """Time of one way in seconds at ``x`` of ``axis`` (samples, image tokens or phrases)."""

    axis: str
    x: int
    way: str
    seconds: float


def sweep(
    make: Callable[[int, int], Subject],
    new_tokens: int,
    ways: str = "bce",
    repeats: int = 1,
    say: Callable[[str], None] = lambda _: None,
    samples: Sequence[int] = (1, 2, 5, 10, 20, 30),
    image_tokens: Sequence[int] = (144, 324, 576, 1024),
) -> list[Point]:
    """Measure with 10 samples, 576 image tokens and one phrase, varying one of them at a time: ``samples``, then
    ``image_tokens``, then phrases. ``make`` returns the subject for (image tokens, phrases)."""
    points: list[Point] = []
    subject = make(576, max(PHRASES))
    for n in samples:
        say(f"{n} samples")
        points += _points("samples", n, subject, n, new_tokens, ways, repeats)
    for tokens in image_tokens:
        say(f"{tokens} image tokens")
        points += _points("image tokens", tokens, make(tokens, 1), USUAL_SAMPLES, new_tokens, ways, repeats)
    for k in PHRASES:
        say(f"{k} phrases")
        some = Subject(subject.lvlm, subject.prompts[:k], subject.words)
        report = compare_phrases(some, USUAL_SAMPLES, new_tokens, repeats)
        points += [Point("phrases", k, "together", report.together_s), Point("phrases", k, "apart", report.apart_s)]
    return points


def _points(axis: str, x: int, subject: Subject, samples: int, new_tokens: int, ways: str, repeats: int) -> list[Point]:
    report = compare(subject, samples, new_tokens, ways, repeats)
    return [Point(axis, x, row.way, row.seconds) for row in report.rows if row.seconds is not None]


def draw(points: Sequence[Point], title: str, file: Path) -> None:
    """Draw three panels, one per axis, from zero seconds upwards, into a PNG file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 3, figsize=(12, 4), layout="constrained")
    for panel, axis in zip(panels, ("samples", "image tokens", "phrases"), strict=True):
        here = [p for p in points if p.axis == axis]
        for way in dict.fromkeys(p.way for p in here):
            line = [p for p in here if p.way == way]
            label = f"({way}) {WAYS[way]}" if way in WAYS else f"ours, {way}"
            colour = _COLOURS.get(way, _COLOURS["e"] if way == "together" else _COLOURS["b"])
            panel.plot([p.x for p in line], [p.seconds for p in line], "o-", color=colour, label=label)
        panel.set(xlabel=axis, ylabel="seconds", ylim=(0, None))
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    figure.suptitle(title, fontsize=10)
    drawn = io.BytesIO()  # if Pillow itself writes to a full disk, its error lacks that of the system
    figure.savefig(drawn, format="png", dpi=110, metadata={"Software": "acs-bench"})
    pyplot.close(figure)
    write_bytes(file, drawn.getvalue())


def to_dict(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Return the points as JSON values."""
    return [vars(p) for p in points]
