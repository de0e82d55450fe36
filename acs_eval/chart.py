"""Line charts as records, and where their parts lie in an SVG picture. Colours are the page's, so that they follow its
light or dark scheme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

WIDTH, HEIGHT = 480, 320  # of the picture, in its own units
LEFT, TOP, BOTTOM = 46, 14, 44  # margins
CHARACTER, LINE = (7.0, 7.8), 14.5  # width of a label's character, thin and strong, and height of its line
WIDEST_LABEL = 24  # characters
TICKS = 5


@dataclass(frozen=True)
class Series:
    """A line through ``points`` (x, y), ``ends`` the intervals of y or empty.

    ``colour`` numbers its colour; lines of one colour differ by their ``dash``. ``strong`` lines are what the chart is
    about. ``level``: a horizontal line at the first point's y. ``details`` is what is told of each point beside its
    numbers, or empty.
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
    """``x_ticks`` are the values to name on the x axis, chosen if empty, and ``x_names`` what to write there if not the
    values. ``bounds`` of the y axis, or None for those of
    the data; ``diagonal`` draws y = x; ``shaded`` are (from, to) ranges of x with a ground of their own."""

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
        """What is written below ``x``."""
        return dict(zip(self.x_ticks, self.x_names, strict=False)).get(x, f"{x:.3g}")

    @property
    def told(self) -> str:
        """All points in words, for those who cannot see them."""
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
    """Where everything of ``chart`` lies. Heights count downwards, as SVG wants them."""

    chart: Chart
    size: tuple[int, int] = field(default=(WIDTH, HEIGHT))

    @cached_property
    def right(self) -> float:
        """Where the plot ends; labels of the lines lie beyond."""
        longest = max((CHARACTER[s.strong] * len(cut(s.name)) for s in self.chart.series), default=0.0)
        return self.size[0] - 14 - longest

    @cached_property
    def x_range(self) -> tuple[float, float]:
        """Least and largest x."""
        xs = [x for s in self.chart.series if not s.level for x, _ in s.points] + list(self.chart.x_ticks)
        low, high = min(xs, default=0.0), max(xs, default=1.0)
        return (low, high) if high > low else (low - 0.5, high + 0.5)

    @cached_property
    def y_range(self) -> tuple[float, float]:
        """Least and largest y, ends of intervals included, with some air."""
        if self.chart.bounds:
            return self.chart.bounds
        ys = [y for s in self.chart.series for _, y in s.points] + [
            y for s in self.chart.series for e in s.ends for y in e
        ]
        low, high = min(ys, default=0.0), max(ys, default=1.0)
        air = 0.06 * (high - low) or 0.5
        return low - air, high + air

    def x(self, value: float) -> float:
        """Where an x lies; 0 units from the left margin for the least one."""
        low, high = self.x_range
        return round(LEFT + 8 + (value - low) / (high - low) * (self.right - LEFT - 16), 1)

    def y(self, value: float) -> float:
        """Where a y lies."""
        low, high = self.y_range
        share = (min(max(value, low), high) - low) / (high - low)
        return round(self.size[1] - BOTTOM - share * (self.size[1] - BOTTOM - TOP), 1)

    @property
    def bottom(self) -> float:
        """Where the x axis lies."""
        return self.size[1] - BOTTOM

    def x_ticks(self) -> list[tuple[float, str]]:
        """Place and text of each tick below."""
        values = self.chart.x_ticks or nice_ticks(*self.x_range)
        names = self.chart.x_names or [f"{v:g}" for v in values]
        return [(self.x(v), name) for v, name in zip(values, names, strict=True)]

    def y_ticks(self) -> list[tuple[float, str]]:
        """Place and text of each tick on the left."""
        return [(self.y(v), f"{v:g}") for v in nice_ticks(*self.y_range)]

    def path(self, series: Series) -> str:
        """The line, as SVG's path."""
        if series.level:
            height = self.y(series.points[0][1])
            return f"M{LEFT} {height}H{self.right:.1f}"
        return "M" + "L".join(f"{self.x(x)} {self.y(y)}" for x, y in series.points)

    def band(self, series: Series) -> str:
        """The intervals of a line as an area; empty without any."""
        if not series.ends or series.level:
            return ""
        there = [f"{self.x(x)} {self.y(high)}" for (x, _), (_, high) in zip(series.points, series.ends, strict=True)]
        back = [f"{self.x(x)} {self.y(low)}" for (x, _), (low, _) in zip(series.points, series.ends, strict=True)]
        return "M" + "L".join(there + back[::-1]) + "Z"

    def labels(self) -> list[tuple[Series, str, float, float, float]]:
        """Each line's name, the height it is written at, and place and height of the line's end: as near to that as the
        other names allow."""
        wanted = sorted((self.y(s.points[-1][1]), i) for i, s in enumerate(self.chart.series))
        placed = spread([height for height, _ in wanted], LINE, TOP, self.bottom)
        found = []
        for place, (height, i) in zip(placed, wanted, strict=True):
            s = self.chart.series[i]
            found.append((s, cut(s.name), place, self.right if s.level else self.x(s.points[-1][0]), height))
        return found


def cut(name: str) -> str:
    """A label that is not too wide."""
    return name if len(name) <= WIDEST_LABEL else name[: WIDEST_LABEL - 1] + "…"


def nice_ticks(low: float, high: float, count: int = TICKS) -> tuple[float, ...]:
    """About ``count`` round numbers from ``low`` to ``high``."""
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
    """The ascending ``heights``, moved apart until each is at least ``gap`` from the next, as little as possible and
    within ``low`` and ``high`` where they fit."""
    # Blocks of touching labels, each around the mean of what its labels want; blocks that touch become one.
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
