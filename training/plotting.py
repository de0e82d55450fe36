"""Figures for print: created without a display, and written as PDF, SVG and PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from acs_core.geometry import Box
from acs_core.output import write_bytes

FORMATS = ("pdf", "svg", "png")
DPI = 300  # of PNG files, and of pictures inside the others
HEAT = "inferno"  # perceptually uniform: equal steps of attention look equal, also in grey
TRUE, PREDICTED, SHADE = "#ffd400", "#e8281b", "#f2e6b8"  # yellow, red: the paper's figure 5; shade of critical layers
# Text stays text in PDF and SVG, and equal figures give equal files.
_SETTINGS: Any = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "acs", "font.size": 9.0}
_NO_DATE = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}


def new_figure(rows: int, columns: int, size: tuple[float, float], **more: Any) -> tuple[Figure, Any]:
    """Return a figure of ``size`` (width, height) in inches, and its axes: one, or an array as of
    ``matplotlib.figure.Figure.subplots``, which gets ``more``."""
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=size, layout="constrained")
        return figure, figure.subplots(rows, columns, **more)


def save(figure: Figure, file: Path, formats: Sequence[str] = FORMATS, dpi: int | None = None) -> list[Path]:
    """Write ``figure`` once for each of ``formats``, under the name of ``file`` with their suffixes; missing folders
    are created. ``dpi``: another resolution of its pictures than ``DPI``.

    Returns:
        The paths of the files.

    Raises:
        OSError: a file cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    made = []
    for kind in formats:
        drawn = io.BytesIO()  # if Pillow itself writes to a full disk, its error lacks that of the system
        with matplotlib.rc_context(_SETTINGS):
            figure.savefig(drawn, format=kind, dpi=dpi or DPI, metadata=_NO_DATE[kind])
        made.append(file.with_name(f"{file.name.removesuffix('.png')}.{kind}"))
        write_bytes(made[-1], drawn.getvalue())
    return made


def outline(box: Box, colour: str, width: float = 1.2, style: str = "-") -> Rectangle:
    """Return the outline of ``box``, for axes in its pixels."""
    return Rectangle(
        (box.x1, box.y1), box.width, box.height, fill=False, edgecolor=colour, linewidth=width, linestyle=style
    )


def whole_ticks(axes: Any, count: int) -> None:
    """Put at most about ten ticks on the x axis, at whole numbers below ``count``."""
    axes.set_xticks(range(0, count, max(1, -(-count // 10))))


def shade(axes: Any, layers: Sequence[int]) -> None:
    """Shade the ``layers`` on the x axis, neighbours in one piece."""
    ordered = sorted(layers)
    starts = [layer for layer in ordered if layer - 1 not in ordered]
    ends = [layer for layer in ordered if layer + 1 not in ordered]
    for first, last in zip(starts, ends, strict=True):
        axes.axvspan(first - 0.5, last + 0.5, color=SHADE, zorder=0, linewidth=0)
