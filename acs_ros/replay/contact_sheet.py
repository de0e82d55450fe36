"""Contact sheet of a run: equal tiles, each a frame with its boxes, a zoomed inset of a small object, and a caption."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from acs_core.evaluation.table import cut
from acs_core.geometry import Box
from acs_core.overlay import font_of_size
from acs_core.plain_text import one_line
from acs_ros.replay.frame_table import BAD, DOUBTFUL, GOOD, FrameRow

MAX_TILES = 60
MAX_COLUMNS = 6
PICTURE = (320, 240)  # width and height in pixels of the part of a tile that shows the frame
GAP, MARGIN, PAD = 20, 28, 8
TITLE_SIZE, TEXT_SIZE, PHRASE_SIZE, FACTS_SIZE = 28, 17, 18, 15
LEADING = 1.35  # line height over font size
PHRASE_LINES, REASON_LINES = 2, 3
INSET = 112  # side in pixels
SMALL = 36  # pixels: a box whose longer side is shorter on the tile gets an inset
CONTEXT = 2.2  # side of the region in an inset over the longer side of its box
AWAY = 8  # pixels kept free between an inset and the boxes

PAGE, INK, FAINT, LINE = (247, 247, 244), (34, 36, 40), (120, 122, 126), (217, 217, 211)
WHITE, RIM = (255, 255, 255), (22, 24, 28)
TRUTH = (255, 213, 0)
ANSWERS = {GOOD: (52, 232, 92), BAD: (255, 72, 66), DOUBTFUL: (255, 170, 60), "": (70, 200, 255)}
PILL_PAD = 7
PILLS = {GOOD: (24, 128, 56), BAD: (190, 38, 34), DOUBTFUL: (168, 98, 0), "": (70, 84, 100)}

Color = tuple[int, int, int]
Rect = tuple[int, int, int, int]  # left, top, right, bottom; right and bottom are outside
View = tuple[float, float, float]  # tile pixels per frame pixel, and where the frame's origin lies on the tile


@dataclass(frozen=True)
class TilePicture:
    """The upper part of a tile. ``image`` is of size PICTURE; ``shown`` is where the frame lies in it, the rest has the
    colour PAGE; ``boxes`` are the boxes drawn, ``inset`` is where the inset lies, None without one."""

    image: Image.Image
    shown: Rect
    boxes: tuple[Rect, ...]
    inset: Rect | None


@dataclass(frozen=True)
class PlacedText:
    """A line of text of a caption; ``at`` is the upper left corner of ``rect``, which encloses its ink."""

    text: str
    rect: Rect
    font: ImageFont.FreeTypeFont
    color: Color
    pill: Color | None = None  # background

    def draw(self, draw: ImageDraw.ImageDraw, left: int, top: int) -> None:
        """Draw it, moved by ``left`` and ``top``."""
        x0, y0, x1, y1 = self.rect
        if self.pill:
            draw.rounded_rectangle((left + x0, top + y0, left + x1 - 1, top + y1 - 1), 5, fill=self.pill)
            x0 += PILL_PAD
        ascent, descent = self.font.getmetrics()
        y = top + y0 + (y1 - y0 - ascent - descent) // 2
        draw.text((left + x0, y), self.text, font=self.font, fill=self.color)


class ContactSheet:
    """Collects at most MAX_TILES rows of a run and lays them out on one page.

    Longer runs are sampled at equal distances; ``wanted`` are the rows that :meth:`add` takes.
    """

    def __init__(self, rows: Sequence[FrameRow], title: str, lines: Iterable[str] = ()) -> None:
        count = min(len(rows), MAX_TILES)
        self.wanted = tuple(rows[i * len(rows) // count] for i in range(count))
        self._title, self._lines = title, [line for line in lines if line]
        if count < len(rows):
            self._lines.append(f"shown: {count} of {len(rows):,}, at equal distances")
        self._pictures: dict[int, TilePicture] = {}

    def add(self, frame_number: int, image: np.ndarray) -> None:
        """Draw the tiles of the frame with this number; ``image`` is (H, W, 3) uint8 RGB."""
        for i, row in enumerate(self.wanted):
            if row.frame.number == frame_number:
                self._pictures[i] = tile_picture(image, row)

    @property
    def drawn(self) -> int:
        """Number of tiles that have their picture."""
        return len(self._pictures)

    def render(self) -> Image.Image:
        """The page, with the tiles of all frames added so far."""
        rows = [(self.wanted[i], self._pictures[i]) for i in sorted(self._pictures)]
        columns = max(1, min(MAX_COLUMNS, math.ceil(math.sqrt(len(rows) * 1.25))))
        width = max(2, columns) * (PICTURE[0] + GAP) - GAP + 2 * MARGIN
        lines = max(
            (len(wrap(one_line(row.phrase), font_of_size(PHRASE_SIZE), PICTURE[0])) for row, _ in rows), default=1
        )
        reasons = max((reason_lines(row) for row, _ in rows), default=1)
        tile_height = PICTURE[1] + caption_height(lines, reasons)
        header = self._header(width - 2 * MARGIN)
        down = math.ceil(len(rows) / columns)
        height = MARGIN + header.height + GAP + down * (tile_height + GAP) - GAP + MARGIN
        page = Image.new("RGB", (width, height), PAGE)
        page.paste(header, (MARGIN, MARGIN))
        draw = ImageDraw.Draw(page)
        for i, (row, picture) in enumerate(rows):
            left = MARGIN + (i % columns) * (PICTURE[0] + GAP)
            top = MARGIN + header.height + GAP + (i // columns) * (tile_height + GAP)
            page.paste(picture.image, (left, top))
            draw.line((left, top + tile_height - 1, left + PICTURE[0] - 1, top + tile_height - 1), fill=LINE)
            for text in caption(row, lines, reasons):
                text.draw(draw, left, top + PICTURE[1])
        return page

    def _header(self, width: int) -> Image.Image:
        title, text = font_of_size(TITLE_SIZE), font_of_size(TEXT_SIZE)
        said = [line for one in self._lines for line in wrap(one_line(one), text, width)]
        step = round(TEXT_SIZE * LEADING)
        made = Image.new("RGB", (width, round(TITLE_SIZE * LEADING) + (len(said) + 1) * step), PAGE)
        draw = ImageDraw.Draw(made)
        draw.text((0, 0), shorten_to(one_line(self._title), title, width), font=title, fill=INK)
        y = round(TITLE_SIZE * LEADING)
        for line in said:
            draw.text((0, y), line, font=text, fill=FAINT)
            y += step
        x = 3  # the outline lies around the swatch
        for color, words, dashed in (
            (ANSWERS[GOOD], "right box", False),
            (ANSWERS[BAD], "wrong box", False),
            (ANSWERS[""], "box without known truth", False),
            (TRUTH, "truth", True),
        ):
            swatch = (x, y + 4, x + 22, y + TEXT_SIZE)
            _outline(draw, swatch, color, dashed)
            draw.text((x + 30, y), words, font=text, fill=FAINT)
            x += 30 + text_width(text, words) + 24
        return made


def tile_picture(image: np.ndarray, row: FrameRow) -> TilePicture:
    """The frame scaled to fit PICTURE, with answer and truth drawn, and an inset where the box of interest is small.

    The box of interest is the best answer, or the first true box where there is none. The inset lies in a corner, not
    over any box if there is such a corner, and never over the box that it enlarges.

    Args:
        image: (H, W, 3) uint8 RGB.
    """
    frame = Image.fromarray(np.ascontiguousarray(image))
    scale = min(PICTURE[0] / frame.width, PICTURE[1] / frame.height)
    size = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
    left, top = (PICTURE[0] - size[0]) // 2, (PICTURE[1] - size[1]) // 2
    made = Image.new("RGB", PICTURE, PAGE)
    made.paste(frame.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC), (left, top))
    draw = ImageDraw.Draw(made)
    found = [d.box for d in sorted(row.result.detections, key=lambda d: -d.score)] if row.result else []
    true = list(row.truth or ())
    boxes = _draw_boxes(draw, found, true, row.tone, (scale, left, top))
    target = row.best.box if row.best else true[0] if true else None
    inset = None
    if target is not None and max(target.width, target.height) * scale < SMALL:
        at = _inset_place(_on_tile(target, (scale, left, top)), boxes)
        if at is not None:
            made.paste(_zoomed(frame, target, found, true, row.tone), at)
            inset = (*at, at[0] + INSET, at[1] + INSET)
    return TilePicture(made, (left, top, left + size[0], top + size[1]), tuple(boxes), inset)


def _on_tile(box: Box, view: View) -> Rect:
    scale, left, top = view
    x1, y1, x2, y2 = box.as_tuple()
    x1, y1 = round(left + x1 * scale), round(top + y1 * scale)
    return int(x1), int(y1), max(int(x1) + 1, round(left + x2 * scale)), max(int(y1) + 1, round(top + y2 * scale))


def _draw_boxes(
    draw: ImageDraw.ImageDraw, found: Sequence[Box], true: Sequence[Box], tone: str, view: View
) -> list[Rect]:
    rects = [_on_tile(box, view) for box in found]
    for rect in reversed(rects):  # the best one last
        _outline(draw, rect, ANSWERS[tone])
    rects += [_on_tile(box, view) for box in true]
    for rect in rects[len(found) :]:
        _outline(draw, rect, TRUTH, dashed=True)
    return rects


def _outline(draw: ImageDraw.ImageDraw, rect: Rect, color: Color, dashed: bool = False) -> None:
    """A line just outside ``rect``, which is two pixels wide and has a dark rim; a true box's one further out, so that
    both are seen where they agree."""
    x0, y0, x1, y1 = rect
    if not dashed:
        draw.rectangle((x0 - 3, y0 - 3, x1 + 2, y1 + 2), outline=RIM, width=3)
        draw.rectangle((x0 - 2, y0 - 2, x1 + 1, y1 + 1), outline=color, width=2)
        return
    x0, y0, x1, y1 = x0 - 5, y0 - 5, x1 + 4, y1 + 4
    for start in range(x0, x1 + 1, 8):
        for y in (y0, y1 - 1):
            draw.rectangle((start, y, min(start + 4, x1), y + 1), fill=color)
    for start in range(y0, y1 + 1, 8):
        for x in (x0, x1 - 1):
            draw.rectangle((x, start, x + 1, min(start + 4, y1)), fill=color)


def _zoomed(frame: Image.Image, target: Box, found: Sequence[Box], true: Sequence[Box], tone: str) -> Image.Image:
    """A square of INSET pixels with the frame around ``target``, enlarged, and the boxes in it."""
    side = min(max(CONTEXT * max(target.width, target.height), 12.0), frame.width, frame.height)
    x1, y1, x2, y2 = target.as_tuple()
    x = min(max(0.0, (x1 + x2 - side) / 2), frame.width - side)
    y = min(max(0.0, (y1 + y2 - side) / 2), frame.height - side)
    inner = INSET - 6
    zoomed = frame.resize((inner, inner), Image.Resampling.BICUBIC, box=(x, y, x + side, y + side))
    scale = inner / side
    _draw_boxes(ImageDraw.Draw(zoomed), found, true, tone, (scale, -x * scale, -y * scale))
    made = Image.new("RGB", (INSET, INSET), RIM)
    made.paste(WHITE, (1, 1, INSET - 1, INSET - 1))
    made.paste(zoomed, (3, 3))
    return made


def _inset_place(target: Rect, boxes: Sequence[Rect]) -> tuple[int, int] | None:
    """Upper left corner of the inset: of the corners of the tile that touch no box, else not ``target``, the one
    nearest to it; None where there is none."""
    right, bottom = PICTURE[0] - INSET, PICTURE[1] - INSET
    corners = [(0, 0), (right, 0), (0, bottom), (right, bottom)]

    def free(corner: tuple[int, int], others: Iterable[Rect]) -> bool:
        x, y = corner
        return not any(
            x - AWAY < r[2] and r[0] < x + INSET + AWAY and y - AWAY < r[3] and r[1] < y + INSET + AWAY for r in others
        )

    middle = (target[0] + target[2]) / 2, (target[1] + target[3]) / 2

    def distance(corner: tuple[int, int]) -> float:
        return math.hypot(corner[0] + INSET / 2 - middle[0], corner[1] + INSET / 2 - middle[1])

    for others in (boxes, [target]):
        if fitting := [corner for corner in corners if free(corner, others)]:
            return min(fitting, key=distance)
    return None


def caption_height(lines: int, reasons: int = 1) -> int:
    """Pixels of a caption whose phrase has room for ``lines`` lines, and the reason for no box for ``reasons``."""
    return PAD + lines * round(PHRASE_SIZE * LEADING) + reasons * round(FACTS_SIZE * LEADING) + 4 + PAD


def reason_lines(row: FrameRow) -> int:
    """Lines that the reason for no box takes, 1 to REASON_LINES; 1 also where there is a box."""
    texts = _facts(row, 0, REASON_LINES)
    return max(text.rect[1] for text in texts) // round(FACTS_SIZE * LEADING) + 1


def caption(row: FrameRow, lines: int = 1, reasons: int = 1) -> list[PlacedText]:
    """The texts below a picture, all of them inside PICTURE[0] x caption_height(lines, reasons) pixels: the phrase, the
    verdict, score and IoU (or why there is no box), and the frame's number."""
    width = PICTURE[0]
    big = font_of_size(PHRASE_SIZE)
    placed = []
    y = PAD
    for line in wrap(one_line(row.phrase), big, width, lines):
        placed.append(PlacedText(line, _text_rect(line, big, 0, y, PHRASE_SIZE), big, INK))
        y += round(PHRASE_SIZE * LEADING)
    return placed + _facts(row, PAD + lines * round(PHRASE_SIZE * LEADING) + 4, reasons)


def _facts(row: FrameRow, y: int, reasons: int) -> list[PlacedText]:
    """The texts of a caption below the phrase, from ``y`` on: verdict, facts, the frame's number. The reason for no box
    begins beside the verdict and goes on over the whole width, in at most ``reasons`` lines."""
    small, step = font_of_size(FACTS_SIZE), round(FACTS_SIZE * LEADING)
    verdict, number = str(row.verdict), f"#{row.frame.number}"
    x0, y0, x1, y1 = _text_rect(verdict, small, 0, y, FACTS_SIZE)
    x1 += 2 * PILL_PAD
    placed = [PlacedText(verdict, (x0, y0, x1, y1), small, WHITE, PILLS[row.tone])]
    at = PICTURE[0] - text_width(small, number)
    x = x1 + 10
    if row.best is not None:
        facts = [f"score {row.score:.2f}"] if row.score is not None else []
        facts += [f"IoU {cut(row.iou)}"] if row.iou is not None else []
        said = [shorten_to("   ".join(facts), small, at - 10 - x)]
    else:
        reason = one_line(row.result.reason if row.result else row.problem)
        said = wrap(reason, small, (at - 10 - x, PICTURE[0]), reasons)
    for i, text in enumerate(said):
        left = 0 if i else x
        if text:
            placed.append(PlacedText(text, _text_rect(text, small, left, y + i * step, FACTS_SIZE), small, INK))
    placed.append(PlacedText(number, _text_rect(number, small, at, y, FACTS_SIZE), small, FAINT))
    return placed


def _text_rect(text: str, face: ImageFont.FreeTypeFont, x: int, y: int, size: int) -> Rect:
    return x, y, x + text_width(face, text), y + round(size * LEADING)


def wrap(text: str, face: ImageFont.FreeTypeFont, width: int | tuple[int, int], most: int = PHRASE_LINES) -> list[str]:
    """``text`` broken between words into at most ``most`` lines of ``width`` pixels; the last one is cut with an
    ellipsis where it does not fit, and so is a word that is wider than a line.

    ``width`` may be a pair: the width of the first line, and that of the others.
    """
    first, others = width if isinstance(width, tuple) else (width, width)
    lines: list[str] = []
    words = text.split()
    while words and len(lines) < most - 1:
        room = others if lines else first
        count = len(words)
        while count > 1 and text_width(face, " ".join(words[:count])) > room:
            count -= 1
        lines.append(shorten_to(" ".join(words[:count]), face, room))
        words = words[count:]
    if words:
        lines.append(shorten_to(" ".join(words), face, others if lines else first))
    return lines


def shorten_to(text: str, face: ImageFont.FreeTypeFont, width: float) -> str:
    """``text``, cut at its end with an ellipsis until it is at most ``width`` pixels wide; "" where nothing fits."""
    if text_width(face, text) <= width:
        return text
    low, high = 0, len(text)
    while low < high:  # the longest beginning that fits
        middle = (low + high + 1) // 2
        fits = text_width(face, text[:middle].rstrip() + "…") <= width
        low, high = (middle, high) if fits else (low, middle - 1)
    return text[:low].rstrip() + "…" if low else ""


def text_width(face: ImageFont.FreeTypeFont, text: str) -> int:
    """Pixels that ``text`` takes; its last letter may reach beyond its advance."""
    return max(math.ceil(face.getlength(text)), math.ceil(face.getbbox(text)[2]))
