"""Drawing of a result on its image: phrase, detections and other candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from acs_core.geometry import Box
from acs_core.types import Candidate, GroundingResult, Outcome, ScoreKind

WINNER = (60, 255, 90)
LOSER = (150, 205, 255)
TRUTH = (255, 225, 0)
REFUSED = (255, 170, 60)
DARK = (22, 24, 28)
LIGHT = (240, 240, 240)
MAX_GRID = 4096  # pixels

KIND_TEXT = {
    ScoreKind.CALIBRATED: "P(IoU>=0.5)",
    ScoreKind.CALIBRATED_IF_PRESENT: "P(IoU>=0.5) if present",
    ScoreKind.PREDICTED_IOU: "predicted IoU",
    ScoreKind.RANK_RELATIVE: "rank in this call",
    ScoreKind.NONE: "no score",
}

Color = tuple[int, int, int]
Rect = tuple[float, float, float, float]


def draw_result(
    image: np.ndarray,
    result: GroundingResult,
    truth: Sequence[Box] = (),
    *,
    min_side: int = 480,
    max_side: int | None = None,
) -> np.ndarray:
    """Draw a result on its image.

    Detections are thick and green with their score, other candidates thin and blue, with the best quality and the size
    of each cluster without a detection, ``truth`` is yellow and dashed, and the searched region and the window of a
    second look thin and white.
    A strip above shows the phrase and, without detections, the reason.

    Args:
        image: (H, W, 3) uint8 RGB, the image of the result.
        result: the result.
        truth: true boxes in pixels of the image.
        min_side: images whose longer side is smaller are enlarged by an integer factor, since labels would cover them.
            0 keeps the size.
        max_side: images whose longer side is larger after that are reduced to it, before anything is drawn. None: any.

    Returns:
        (S + f*H, f*W, 3) uint8 RGB with the factor f and a strip of S pixels above.
    """
    factor: float = _enlargement(image, min_side)
    if max_side is not None:
        factor = min(factor, max_side / max(image.shape[:2]))
    width, height = _scaled(image, factor)
    resampling = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.BOX
    picture = Image.fromarray(np.ascontiguousarray(image)).resize((width, height), resampling)
    unit = _unit((width, height))
    pen = _Pen(ImageDraw.Draw(picture, "RGBA"), unit, (width, height), factor, [])

    for part in (result.region, result.window):
        if part:
            pen.thin(part, LIGHT)
    losers = [c for c in result.candidates if c.outcome is not Outcome.SELECTED]
    # A detection's box may differ from its candidate's: some selectors combine several boxes.
    winners = [replace(result.candidates[d.candidate], box=d.box) for d in result.detections]
    for candidate in losers:
        if candidate.outcome is Outcome.BELOW_THRESHOLD:
            pen.rimmed(candidate.box, REFUSED, unit)
        else:
            pen.thin(candidate.box, LOSER)
    for candidate in winners:
        pen.rimmed(candidate.box, WINNER, 2 * unit)
    for box in truth:  # last and dashed, so that a detection below stays visible
        pen.dashed(box, TRUTH)
    for candidate in winners:  # labels after all boxes, so that no line crosses them
        text = f"q {candidate.quality:.2f}" if result.score_kind is ScoreKind.NONE else f"{candidate.score:.2f}"
        pen.label(candidate.box, text, WINNER)
    for candidate, count in _spoken_for(losers, winners):
        refused = candidate.outcome is Outcome.BELOW_THRESHOLD
        pen.label(
            candidate.box, f"q {candidate.quality:.2f}" + f" x{count}" * (count > 1), REFUSED if refused else LOSER
        )

    strip = _strip(result, bool(truth), width, unit)
    return np.concatenate([strip, np.asarray(picture)])


def draw_results(image: np.ndarray, results: Sequence[GroundingResult], *, min_side: int = 480) -> np.ndarray:
    """Draw the results of several phrases on their image, one copy of it for each phrase, in a grid.

    Args:
        image: (H, W, 3) uint8 RGB, the image of the results.
        results: one result per phrase. One alone is drawn as by :func:`draw_result`. The time of a call, which all
            phrases share, is drawn for one alone only.
        min_side: see :func:`draw_result`.

    Returns:
        (H', W', 3) uint8 RGB. The grid of several results is at most MAX_GRID pixels high and wide; larger copies are
        reduced.

    Raises:
        ValueError: there are no results.
    """
    if not results:
        raise ValueError("results must hold one result per phrase, got none")
    if len(results) == 1:
        return draw_result(image, results[0], min_side=min_side)
    side, columns = _grid_of(image, len(results), min_side)
    tiles = [draw_result(image, replace(result, timing_ms={}), min_side=min_side, max_side=side) for result in results]
    height, width = tiles[0].shape[:2]
    canvas = np.full((-(-len(tiles) // columns) * height, columns * width, 3), DARK, np.uint8)
    for i, tile in enumerate(tiles):
        row, column = divmod(i, columns)
        canvas[row * height : (row + 1) * height, column * width : (column + 1) * width] = tile
    return canvas


def _grid_of(image: np.ndarray, count: int, min_side: int) -> tuple[int, int]:
    """Return the longer side in pixels of each of ``count`` copies of ``image``, and the number of columns: those with
    the largest copies that fit into MAX_GRID, and among them the squarest."""
    longer = max(image.shape[:2])
    largest = longer * _enlargement(image, min_side)

    def extent(side: int, columns: int) -> int:
        width, height = _scaled(image, side / longer)
        height += _strip_height(_unit((width, height)))
        return max(columns * width, -(-count // columns) * height)

    def best(columns: int) -> tuple[int, int, int]:
        low, high = 1, largest
        while low < high:  # binary search for the largest copies that fit
            middle = (low + high + 1) // 2
            low, high = (middle, high) if extent(middle, columns) <= MAX_GRID else (low, middle - 1)
        return low, -extent(low, columns), -columns

    side, _, columns = max(best(columns) for columns in range(1, count + 1))
    return side, -columns


def _enlargement(image: np.ndarray, min_side: int) -> int:
    """Return the integer factor by which an image (H, W, 3) is enlarged to a longer side of ``min_side`` pixels."""
    return max(1, -(-min_side // max(image.shape[:2])))


def _scaled(image: np.ndarray, factor: float) -> tuple[int, int]:
    """Return (width, height) of an image (H, W, 3) scaled by ``factor``, in pixels."""
    return max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))


def _unit(size: tuple[int, int]) -> int:
    """Return the line width in pixels for a picture of ``size`` (width, height), proportional to it."""
    return max(1, round(max(size) / 500))


@dataclass(frozen=True)
class _Pen:
    draw: ImageDraw.ImageDraw
    unit: int
    size: tuple[int, int]  # width, height of the canvas
    factor: float
    taken: list[Rect]  # rectangles of the labels drawn so far

    def rimmed(self, box: Box, color: Color, width: int) -> None:
        """Draw a line outside the box, so that small objects stay visible, with a dark rim for contrast."""
        rim = max(1, self.unit // 2)
        self.draw.rectangle(self._around(box, width + 2 * rim), outline=DARK, width=width + 2 * rim)
        self.draw.rectangle(self._around(box, width + rim), outline=color, width=width)

    def thin(self, box: Box, color: Color) -> None:
        """Draw a translucent line, so that many boxes around a small object do not hide it."""
        self.draw.rectangle(self._around(box, self.unit), outline=(*color, 170), width=self.unit)

    def dashed(self, box: Box, color: Color) -> None:
        """Draw a dashed line just outside the box."""
        x1, y1, x2, y2 = self._around(box, 2 * self.unit)
        dash, line = 4 * self.unit, 2 * self.unit
        for start in np.arange(x1, x2, 2 * dash):
            for y in (y1, y2 - line + 1):
                self.draw.rectangle((start, y, min(start + dash, x2), y + line - 1), fill=color)
        for start in np.arange(y1, y2, 2 * dash):
            for x in (x1, x2 - line + 1):
                self.draw.rectangle((x, start, x + line - 1, min(start + dash, y2)), fill=color)

    def _around(self, box: Box, grow: int) -> Rect:
        x1, y1, x2, y2 = (round(v * self.factor) for v in box.as_tuple())
        return x1 - grow, y1 - grow, max(x1, x2 - 1) + grow, max(y1, y2 - 1) + grow

    def label(self, box: Box, text: str, color: Color) -> None:
        """Draw a label above, below, right or left of the box, where it is inside the image and covers no other label.

        If there is no such place, the label is left out.
        """
        font = font_of_size(12 * self.unit)
        left, top, right, bottom = self.draw.textbbox((0, 0), text, font=font)
        pad, gap = 2 * self.unit, 4 * self.unit
        w, h = right - left + 2 * pad, bottom - top + 2 * pad
        x1, y1, x2, y2 = (v * self.factor for v in box.as_tuple())
        inside_x = min(max(0.0, x1 - gap), self.size[0] - w)
        middle_y = min(max(0.0, (y1 + y2 - h) / 2), self.size[1] - h)
        places = (inside_x, y1 - gap - h), (inside_x, y2 + gap), (x2 + gap, middle_y), (x1 - gap - w, middle_y)
        for x, y in places:
            rect = (x, y, x + w, y + h)
            # Not at the very top, where the label would run into the strip of text above the image.
            inside = x >= 0 and y >= gap and rect[2] <= self.size[0] and rect[3] <= self.size[1]
            if inside and not any(_touch(rect, other) for other in self.taken):
                self.taken.append(rect)
                self.draw.rectangle(rect, fill=DARK)
                self.draw.text((x + pad - left, y + pad - top), text, font=font, fill=color)
                return


def _touch(a: Rect, b: Rect) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _spoken_for(losers: Sequence[Candidate], winners: Sequence[Candidate]) -> list[tuple[Candidate, int]]:
    """Return the best candidate of each cluster without a detection, and the number of candidates in that cluster."""
    won = {c.cluster for c in winners}
    groups: dict[int, list[Candidate]] = {}
    for candidate in losers:
        if candidate.cluster not in won:
            groups.setdefault(candidate.cluster, []).append(candidate)
    return [(max(group, key=lambda c: c.quality), len(group)) for group in groups.values()]


def _strip(result: GroundingResult, has_truth: bool, width: int, unit: int) -> np.ndarray:
    big, small = font_of_size(16 * unit), font_of_size(12 * unit)
    pad = 5 * unit
    count, answers = len(result.candidates), len(result.responses)
    facts = f"{result.selector}: {_plural(count, 'box', 'boxes')} in {_plural(answers, 'response', 'responses')}"
    if result.detections:
        scores = ", ".join(f"{d.score:.2f}" for d in result.detections[:6])
        verdict, ink = f"{KIND_TEXT[result.score_kind]} {scores}", WINNER
        if result.score_kind is ScoreKind.NONE:
            verdict = "no score"
    else:
        verdict, ink = f"no detection: {result.reason or 'no reason given'}", REFUSED
    if "total" in result.timing_ms:
        facts += f", {result.timing_ms['total']:.0f} ms"
    if has_truth:
        facts += ", truth in yellow"
    lines = ((f"“{result.phrase}”", big, LIGHT), (verdict, small, ink), (facts, small, LOSER))
    heights = [_line_height(font.size) for _, font, _ in lines]
    strip = Image.new("RGB", (width, _strip_height(unit)), DARK)
    draw = ImageDraw.Draw(strip)
    y = pad
    for (text, font, color), height in zip(lines, heights, strict=True):
        draw.text((pad, y), _fit(draw, text, font, width - 2 * pad), font=font, fill=color)
        y += height
    return np.asarray(strip)


def _strip_height(unit: int) -> int:
    """Return the height in pixels of the strip above a picture with lines of ``unit`` pixels."""
    return _line_height(16 * unit) + 2 * _line_height(12 * unit) + 2 * 5 * unit


def _line_height(font_size: float) -> int:
    return round(font_size * 1.35)


def _plural(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _fit(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Return ``text``, truncated with an ellipsis to a width of at most ``width`` pixels."""
    if draw.textlength(text, font=font) <= width:
        return text
    low, high = 0, len(text)
    while low < high:  # binary search for the longest prefix that fits
        middle = (low + high + 1) // 2
        low, high = (middle, high) if draw.textlength(text[:middle] + "…", font=font) <= width else (low, middle - 1)
    return text[:low] + "…"


def font_of_size(size: int) -> ImageFont.FreeTypeFont:
    """Return Pillow's own font in ``size`` pixels.

    Raises:
        RuntimeError: Pillow was built without FreeType.
    """
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("this Pillow was built without FreeType; install the Pillow wheel from PyPI")
    return font
