"""Line charts as records, and the layout of their parts in an SVG image.

Colours are CSS variables of the page, so that charts follow its light or dark scheme.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

WIDTH, HEIGHT = 480, 320  # of the image, in SVG units
LEFT, TOP, BOTTOM = 46, 14, 44  # margins
CHARACTER, LINE = (7.0, 7.8), 14.5  # width of a character of a label (normal, bold), and its line height
WIDEST_LABEL = 24  # characters
TICKS = 5


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        name: label of the line.
        points: (x, y) of each point.
        ends: interval (low, high) of y at each point; empty without intervals.
        colour: index of the colour.
        strong: whether the line is emphasised.
        level: draw a horizontal line at the y of the first point.
        details: text to show with each point besides its numbers; empty for none.
        dash: index of the dash pattern; tells lines of the same colour apart.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    ends: tuple[tuple[float, float], ...] = ()
    colour: int = 0
    strong: bool = False
    level: bool = False
    details: tuple[str, ...] = ()
    dash: int = 0


@dataclass(frozen=True)
class Chart:
    """A line chart.

    Attributes:
        title, x_label, y_label: texts of the chart.
        series: its lines.
        x_ticks: x values to label; chosen automatically if empty.
        bounds: (low, high) of the y axis; None to fit the data.
        diagonal: whether to draw y = x.
        shaded: (from, to) ranges of x with a shaded background.
        note: a sentence below the chart.
        x_names: labels of ``x_ticks``; empty to print the values.
    """

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    x_ticks: tuple[float, ...] = ()
    bounds: tuple[float, float] | None = None
    diagonal: bool = False
    shaded: tuple[tuple[float, float], ...] = ()
    note: str = ""
    x_names: tuple[str, ...] = ()

    def name_of(self, x: float) -> str:
        """Return the tick label of ``x``."""
        return dict(zip(self.x_ticks, self.x_names, strict=False)).get(x, f"{x:.3g}")

    @property
    def told(self) -> str:
        """Text alternative of the chart for screen readers: some points of each line in words."""
        lines = []
        for s in self.series:
            if s.level:
                lines.append(f"{s.name}: {s.points[0][1]:.3g} everywhere")
            else:
                few = s.points[:: max(1, len(s.points) // 12)]
                lines.append(f"{s.name}: " + ", ".join(f"{y:.3g} at {self.name_of(x)}" for x, y in few))
        return f"{self.y_label} against {self.x_label}. " + "; ".join(lines) + "."


@dataclass(frozen=True)
class Drawing:
    """Layout of ``chart`` in an image of ``size`` (width, height), in SVG units; y grows downwards."""

    chart: Chart
    size: tuple[int, int] = field(default=(WIDTH, HEIGHT))

    @cached_property
    def right(self) -> float:
        """Right edge of the plot area; the labels of the lines are placed to its right."""
        longest = max((CHARACTER[s.strong] * len(cut(s.name)) for s in self.chart.series), default=0.0)
        return self.size[0] - 14 - longest

    @cached_property
    def x_range(self) -> tuple[float, float]:
        """Smallest and largest x."""
        xs = [x for s in self.chart.series if not s.level for x, _ in s.points] + list(self.chart.x_ticks)
        low, high = min(xs, default=0.0), max(xs, default=1.0)
        return (low, high) if high > low else (low - 0.5, high + 0.5)

    @cached_property
    def y_range(self) -> tuple[float, float]:
        """Smallest and largest y, intervals included, with a margin of 6 %; or the chart's own bounds."""
        if self.chart.bounds:
            return self.chart.bounds
        ys = [y for s in self.chart.series for _, y in s.points] + [
            y for s in self.chart.series for e in s.ends for y in e
        ]
        low, high = min(ys, default=0.0), max(ys, default=1.0)
        air = 0.06 * (high - low) or 0.5
        return low - air, high + air

    def x(self, value: float) -> float:
        """Return the horizontal position of an x value."""
        low, high = self.x_range
        return round(LEFT + 8 + (value - low) / (high - low) * (self.right - LEFT - 16), 1)

    def y(self, value: float) -> float:
        """Return the vertical position of a y value."""
        low, high = self.y_range
        share = (min(max(value, low), high) - low) / (high - low)
        return round(self.size[1] - BOTTOM - share * (self.size[1] - BOTTOM - TOP), 1)

    @property
    def bottom(self) -> float:
        """Vertical position of the x axis."""
        return self.size[1] - BOTTOM

    def x_ticks(self) -> list[tuple[float, str]]:
        """Return position and label of each tick of the x axis."""
        values = self.chart.x_ticks or nice_ticks(*self.x_range)
        names = self.chart.x_names or [f"{v:g}" for v in values]
        return [(self.x(v), name) for v, name in zip(values, names, strict=True)]

    def y_ticks(self) -> list[tuple[float, str]]:
        """Return position and label of each tick of the y axis."""
        return [(self.y(v), f"{v:g}") for v in nice_ticks(*self.y_range)]

    def path(self, series: Series) -> str:
        """Return the SVG path of a line."""
        if series.level:
            height = self.y(series.points[0][1])
            return f"M{LEFT} {height}H{self.right:.1f}"
        return "M" + "L".join(f"{self.x(x)} {self.y(y)}" for x, y in series.points)

    def band(self, series: Series) -> str:
        """Return the SVG path of the interval area of a line; empty if it has no intervals."""
        if not series.ends or series.level:
            return ""
        there = [f"{self.x(x)} {self.y(high)}" for (x, _), (_, high) in zip(series.points, series.ends, strict=True)]
        back = [f"{self.x(x)} {self.y(low)}" for (x, _), (low, _) in zip(series.points, series.ends, strict=True)]
        return "M" + "L".join(there + back[::-1]) + "Z"

    def labels(self) -> list[tuple[Series, str, float, float, float]]:
        """Return the labels of the lines, moved apart vertically so that they do not overlap.

        Returns:
            For each line: the series, its shortened name, the y of its label, and x and y of the end of the line.
        """
        wanted = sorted((self.y(s.points[-1][1]), i) for i, s in enumerate(self.chart.series))
        placed = spread([height for height, _ in wanted], LINE, TOP, self.bottom)
        found = []
        for place, (height, i) in zip(placed, wanted, strict=True):
            s = self.chart.series[i]
            found.append((s, cut(s.name), place, self.right if s.level else self.x(s.points[-1][0]), height))
        return found


def cut(name: str) -> str:
    """Return ``name``, shortened with an ellipsis to :data:`WIDEST_LABEL` characters."""
    return name if len(name) <= WIDEST_LABEL else name[: WIDEST_LABEL - 1] + "…"


def nice_ticks(low: float, high: float, count: int = TICKS) -> tuple[float, ...]:
    """Return about ``count`` round numbers from ``low`` to ``high``."""
    if not high > low:
        return (low,)
    raw = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(f * unit for f in (1, 2, 2.5, 5, 10) if f * unit >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    ticks = []
    while first * step <= high + 1e-9 * step:
        ticks.append(round(first * step, 10))
        first += 1
    return tuple(ticks)


def spread(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move the ascending ``heights`` apart, as little as possible, until neighbours are at least ``gap`` apart.

    The result stays within ``low`` and ``high`` if there is room.
    """
    # Labels that touch form a block, centred on the mean of their wanted heights; blocks that touch are merged.
    blocks: list[list[float]] = []
    for height in heights:
        blocks.append([height])
        while len(blocks) > 1 and _start(blocks[-2], gap, low, high) + gap * len(blocks[-2]) > _start(
            blocks[-1], gap, low, high
        ):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    return [_start(block, gap, low, high) + gap * k for block in blocks for k in range(len(block))]


def _start(block: Sequence[float], gap: float, low: float, high: float) -> float:
    reach = gap * (len(block) - 1)
    middle = sum(block) / len(block)
    return max(low, min(middle - reach / 2, high - reach))
