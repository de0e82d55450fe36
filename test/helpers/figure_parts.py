"""What a reader sees on a figure: which texts lie on each other."""

from itertools import combinations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

SLACK = 0.5  # pixels


def overlapping_texts(figure):
    """Return the pairs of visible texts of ``figure`` whose boxes overlap, and texts that leave the figure."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    size = figure.bbox
    hidden = {label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for label in _undrawn(axis)}
    drawn = {}
    for text in figure.findobj(Text):
        axes = text.axes
        if (
            text.get_visible()
            and text.get_text().strip()
            and text not in hidden
            and (axes is None or _is_on(text, axes))
        ):
            drawn[text] = text.get_window_extent(renderer)
    found = [
        (a.get_text(), b.get_text())
        for (a, one), (b, other) in combinations(drawn.items(), 2)
        if min(one.x1, other.x1) - max(one.x0, other.x0) > SLACK
        and min(one.y1, other.y1) - max(one.y0, other.y0) > SLACK
    ]
    outside = [
        t.get_text() for t, b in drawn.items() if b.x0 < -1 or b.y0 < -1 or b.x1 > size.x1 + 1 or b.y1 > size.y1 + 1
    ]
    return found + outside


def _is_on(text, axes):
    """Whether ``text`` of ``axes`` is drawn: of axes that are off, only titles and texts are."""
    return axes.axison or text in (axes.title, *axes.texts)


def _undrawn(axis):
    """Yield the labels of ticks that matplotlib keeps but does not draw, beyond the limits of ``axis``."""
    low, high = sorted(axis.get_view_interval())
    margin = 1e-9 * (high - low)
    for tick in (*axis.majorTicks, *axis.minorTicks):
        if not axis.axes.axison or not low - margin <= tick.get_loc() <= high + margin:
            yield from (tick.label1, tick.label2)
