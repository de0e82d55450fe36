"""Figures of the paper from an evaluation file: 1 (object size), 4, 10 (entropy by layer), 5, 11 to 15 (examples)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from acs_core.errors import ImageError
from acs_core.evaluation.cases import Case, Panel
from acs_core.evaluation.metrics import GroupMetrics
from acs_core.evaluation.records import EntropyProfile, Evaluation
from acs_core.evaluation.table import cut
from acs_core.evaluation.tables import Assessed
from acs_core.geometry import Box
from training.plotting import PREDICTED, SHADE, TRUE, new_figure, outline, save, shade, whole_ticks

A4 = (8.27, 11.69)  # inches
COLUMNS, ROWS = 4, 3  # cases of a sheet
COLOURS = ("#777777", "#0068b5", "#c8500a", "#00805c", "#a8488f", "#806600", "#2a90c8")
IOU_COLOURS = ("#0a7d4f", "#e08a1e", "#8c2d82", "#555555")  # from high to zero IoU
Reader = Callable[[str], np.ndarray]


def draw_all(assessed: Assessed, cases: Sequence[Case], read: Reader, folder: Path, prefix: str = "") -> list[str]:
    """Draw all figures that ``assessed`` has data for, and write them into ``folder`` as PDF, SVG and PNG.

    Args:
        assessed: the evaluation with its metrics.
        cases: questions to show with their pictures.
        read: returns the image, (H, W, 3) uint8 RGB, for a :attr:`Question.image`.
        folder: folder to write into.
        prefix: beginning of the file names.

    Returns:
        The names of the files without suffix, and for each figure that is left out a line "NAME: why".
    """
    e, told = assessed.evaluation, []
    single = [m for m in assessed.measured if m.outcomes.single and m.outcomes.shown.any()]
    drawn: dict[str, Figure | str] = {
        "figure-01-object-size": size_figure(single, e.title) if len(single) > 1 else "needs small and large objects",
        "figure-04-entropy": entropy_figure(e, together=True) if e.entropy else "the evaluation has no entropies",
        "figure-10-entropy": entropy_figure(e, together=False) if e.entropy else "the evaluation has no entropies",
    }
    drawn |= {f"figure-05-examples-{n}": sheet for n, sheet in enumerate(sheets(cases, read, e.title), 1)}
    for name, figure in drawn.items():
        if isinstance(figure, str):
            told.append(f"{name}: left out, {figure}")
        else:
            save(figure, folder / f"{prefix}{name}")
            told.append(f"{prefix}{name}")
    return told


def size_figure(measured: Sequence[GroupMetrics], title: str) -> Figure:
    """Return the bars of Acc@0.5 by the size of the objects (figure 1): greedy, and the best setting of each of our
    methods, with 95 % intervals.

    Args:
        measured: groups of single objects.
        title: title of the evaluation.
    """
    names: dict[str, None] = {}
    for m in measured:
        names |= dict.fromkeys(m.group.runs[r].method for r in m.highlights)
    figure, axes = new_figure(1, 1, (1.6 + 1.5 * len(measured), 3.6))
    wide = 0.82 / len(names)
    for k, name in enumerate(names):
        for g, m in enumerate(measured):
            found = [m.scores[r].accuracy for r in m.highlights if m.group.runs[r].method == name]
            if not found:
                continue
            value, place = 100 * found[0].value, g + (k - (len(names) - 1) / 2) * wide
            ends = [[max(0.0, value - 100 * found[0].low)], [max(0.0, 100 * found[0].high - value)]]
            axes.bar(place, value, 0.94 * wide, color=COLOURS[k % len(COLOURS)], label=name if g == 0 else None)
            axes.errorbar(place, value, yerr=ends, color="#222222", elinewidth=0.9, capsize=2)
            # Inside the bar at its foot, where no interval lies, or above a bar that is too low for it.
            low = value < 16
            style = {"rotation": 90, "ha": "center", "va": "bottom", "fontsize": 7.5}
            axes.text(place, ends[1][0] + value + 1 if low else 2, f"{value:.1f}", color="k" if low else "w", **style)
    axes.set_xticks(
        range(len(measured)), [f"{m.group.name}\n{int(m.outcomes.shown.sum())} questions" for m in measured]
    )
    axes.set(ylim=(0, 104), ylabel="Acc@0.5, %", xlim=(-0.55, len(measured) - 0.45))
    axes.set_title(title, fontsize=9, wrap=True)
    axes.spines[["top", "right"]].set_visible(False)
    bars = [Patch(color=COLOURS[k % len(COLOURS)], label=name) for k, name in enumerate(names)]
    figure.legend(handles=bars, loc="outside lower center", ncols=min(3, len(names)), frameon=False, fontsize=8)
    return figure


def entropy_figure(evaluation: Evaluation, together: bool) -> Figure:
    """Return the mean attention entropy of each layer by IoU group, with the critical layers shaded.

    Args:
        evaluation: an evaluation with entropies.
        together: whether to draw the mean of the coordinates (figure 4) rather than a panel for each (figure 10).
    """
    by_coordinate: dict[str, dict[str, EntropyProfile]] = {}
    for profile in evaluation.entropy:
        by_coordinate.setdefault(profile.coordinate, {})[profile.iou_group] = profile
    groups = list(dict.fromkeys(profile.iou_group for profile in evaluation.entropy))
    sizes = {profile.iou_group: profile.count for profile in evaluation.entropy}
    count = 1 if together else len(by_coordinate)
    figure, found = new_figure(1, count, (4.4 if together else 2.6 * count + 0.6, 3.4), sharey=True, squeeze=False)
    shown = [("mean of the coordinates", list(by_coordinate.values()))] if together else []
    for axes, (name, several) in zip(found[0], shown or [(n, [p]) for n, p in by_coordinate.items()], strict=True):
        depth = 0
        for g, group in enumerate(groups):
            lines = [profiles[group].by_layer for profiles in several if group in profiles]
            if lines:
                mean = np.mean(lines, axis=0)
                depth = max(depth, len(mean))
                axes.plot(range(len(mean)), mean, "o-", ms=3, lw=1.3, color=IOU_COLOURS[g % len(IOU_COLOURS)])
        shade(axes, evaluation.critical_layers)
        axes.set_xlabel("layer")
        axes.set_title(name, fontsize=9)
        axes.grid(alpha=0.3)
        whole_ticks(axes, depth)
    found[0][0].set_ylabel("attention entropy, nats")
    handles: list[Any] = [
        Line2D(
            [], [], color=IOU_COLOURS[g % len(IOU_COLOURS)], marker="o", ms=3, label=f"{group} ({sizes[group]} boxes)"
        )
        for g, group in enumerate(groups)
    ]
    handles += [Patch(color=SHADE, label="critical layers")] if evaluation.critical_layers else []
    figure.legend(handles=handles, loc="outside lower center", ncols=2 if together else 4, frameon=False, fontsize=8)
    figure.suptitle(evaluation.title, fontsize=9)
    return figure


def sheets(cases: Sequence[Case], read: Reader, title: str) -> Iterator[Figure]:
    """Yield sheets of A4 with the pictures of ``cases``, ``COLUMNS`` by ``ROWS`` each (figures 5 and 11 to 15): greedy
    above, ours below; true boxes yellow, predicted ones red, and the IoU in a corner without a box."""
    size = COLUMNS * ROWS
    for start in range(0, len(cases), size):
        yield _sheet(cases[start : start + size], read, title)


def _sheet(cases: Sequence[Case], read: Reader, title: str) -> Figure:
    most = max(len(case.panels) for case in cases)
    rows, columns = -(-len(cases) // COLUMNS), min(COLUMNS, len(cases))
    height = A4[1] * rows * most / (ROWS * 2)
    figure, grid = new_figure(rows * most, columns, (A4[0] * columns / COLUMNS, max(height, 3.0)), squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for k, case in enumerate(cases):
        for row, panel in enumerate(case.panels):
            axes = grid[most * (k // COLUMNS) + row, k % COLUMNS]
            _panel(axes, case, panel, read)
            label = f"{case.question.phrase}\n{panel.name}" if row == 0 else panel.name
            axes.set_title(label, fontsize=7.5)
    handles = [
        Line2D([], [], color=TRUE, lw=2, label="true box"),
        Line2D([], [], color=PREDICTED, lw=2, label="predicted box"),
    ]
    figure.suptitle(title, fontsize=9, wrap=True)
    figure.legend(
        handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=7 if columns == 1 else 8
    )
    return figure


def _panel(axes: Any, case: Case, panel: Panel, read: Reader) -> None:
    width, height = case.question.image_size
    try:
        axes.imshow(read(case.question.image), extent=(0, width, height, 0))
    except (ImageError, OSError, ValueError) as error:
        axes.text(width / 2, height / 2, f"no picture:\n{error}", ha="center", va="center", fontsize=5, wrap=True)
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    truth, boxes = case.question.truth, panel.boxes
    for several, colour in ((truth, TRUE), (boxes, PREDICTED)):
        for box in several:
            axes.add_patch(outline(box, "#000000", 2.0))
            axes.add_patch(outline(box, colour))
    text = cut(panel.iou) if boxes else "no box"
    right, low = _free_corner((*truth, *boxes), width, height)
    place = (0.97 if right else 0.03, 0.03 if low else 0.97)
    axes.text(
        *place,
        text,
        transform=axes.transAxes,
        ha="right" if right else "left",
        va="bottom" if low else "top",
        fontsize=7,
        color="white",
        bbox={"facecolor": "#111111", "alpha": 0.8, "pad": 1.5, "edgecolor": "none"},
    )


def _free_corner(boxes: Sequence[Box], width: int, height: int) -> tuple[bool, bool]:
    """Return the corner, as (right, low), whose fifth of the picture overlaps least with ``boxes``; the upper left one
    in a tie."""

    def covered(corner: tuple[bool, bool]) -> float:
        right, low = corner
        x, y = 0.7 * width * right, 0.85 * height * low
        place = Box(x, y, x + 0.3 * width, y + 0.15 * height)
        return sum(
            max(0.0, min(b.x2, place.x2) - max(b.x1, place.x1)) * max(0.0, min(b.y2, place.y2) - max(b.y1, place.y1))
            for b in boxes
        )

    return min(((False, False), (True, False), (False, True), (True, True)), key=covered)
