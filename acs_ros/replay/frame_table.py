"""Per-frame results of a run: one row a frame and phrase, printed as a table and written as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from acs_core.evaluation.outcomes import MIN_IOU
from acs_core.evaluation.table import Cell, Column, Table, TableRow, cut
from acs_core.geometry import Box
from acs_core.plain_text import one_line, printable
from acs_core.types import Detection, GroundingResult, ScoreKind
from acs_ros.bags.frames import FrameAt
from acs_ros.replay.replies import Fate, Replies
from acs_ros.replay.schedule import GroundTruth

MAX_ROWS = 100  # printed; the CSV file has all of them
MAX_NOTES = 3  # errors printed below the table
WIDTH = 100  # columns at most, on wider terminals too: a row should be read at one glance
MIN_PHRASE = 8  # columns
DASH = "–"


class Verdict(StrEnum):
    """Result of one phrase asked about one frame."""

    HIT = "hit"  # IoU of at least MIN_IOU with a true box
    MISS = "miss"
    FALSE_ALARM = "false alarm"  # a box, where the labels say that the object is not there
    FOUND = "found"  # a box, and no labels to compare it with
    ABSTAINED = "abstained"
    FAILED = "failed"
    DROPPED = "dropped"
    NO_ANSWER = "no answer"
    UNREADABLE = "unreadable"
    NOT_ASKED = "not asked"
    NOT_REACHED = "not reached"


OF_FATE = {
    Fate.FAILED: Verdict.FAILED,
    Fate.DROPPED: Verdict.DROPPED,
    Fate.UNANSWERED: Verdict.NO_ANSWER,
    Fate.UNREADABLE: Verdict.UNREADABLE,
    Fate.NOT_ASKED: Verdict.NOT_ASKED,
    Fate.NOT_REACHED: Verdict.NOT_REACHED,
}
NOT_SENT = (Verdict.UNREADABLE, Verdict.NOT_ASKED, Verdict.NOT_REACHED)
GOOD, BAD, DOUBTFUL = "green", "red", "yellow"


@dataclass(frozen=True)
class FrameRow:
    """One phrase asked about one frame. ``result`` is None without an answer, ``problem`` then says why where that is
    known; ``truth`` are the true boxes in pixels of the frame, None where they are not known."""

    frame: FrameAt
    phrase: str
    verdict: Verdict
    result: GroundingResult | None = None
    truth: tuple[Box, ...] | None = None
    latency_ms: float | None = None
    problem: str = ""

    @property
    def best(self) -> Detection | None:
        """The detection with the highest score; None without one."""
        return self.result.best if self.result else None

    @property
    def score(self) -> float | None:
        """Score of the best box in [0, 1]; None without a box, or where the selector states none."""
        if self.result is None or self.best is None or self.result.score_kind is ScoreKind.NONE:
            return None
        return self.best.score

    @property
    def iou(self) -> float | None:
        """See :func:`best_iou`; None without an answer."""
        return best_iou(self.result, self.truth) if self.result is not None else None

    @property
    def tone(self) -> str:
        """GOOD, BAD or DOUBTFUL, or "" where there is nothing to judge."""
        if self.verdict is Verdict.HIT or (self.verdict is Verdict.ABSTAINED and self.truth == ()):
            return GOOD
        if self.verdict in (Verdict.MISS, Verdict.FALSE_ALARM, Verdict.FAILED, Verdict.NO_ANSWER, Verdict.UNREADABLE):
            return BAD
        return DOUBTFUL if self.verdict in (Verdict.ABSTAINED, Verdict.DROPPED) else ""


def best_iou(result: GroundingResult | None, truth: Sequence[Box] | None) -> float | None:
    """IoU of the best box with the true box it fits best, 0 without a box; None where the labels show no such object,
    or there are none."""
    if not truth:
        return None
    best = result.best if result else None
    return max(best.box.iou(box) for box in truth) if best else 0.0


def frame_rows(replies: Replies, truth: GroundTruth) -> tuple[FrameRow, ...]:
    """The rows of all frames in the order of the bag: one for each phrase asked, one for a frame that was not asked."""
    rows = []
    for told in replies.frames:
        for i, phrase in enumerate(told.phrases or ("",)):
            boxes = truth.boxes(told.frame, phrase)
            kept = told.kept[i] if told.kept else None
            result = kept.result if kept else None
            verdict = _verdict(result, boxes) if result else OF_FATE.get(told.fate, Verdict.FAILED)
            latency = kept.latency_ms if kept else None
            rows.append(FrameRow(told.frame, phrase, verdict, result, boxes, latency, kept.problem if kept else ""))
    return tuple(rows)


def _verdict(result: GroundingResult, truth: Sequence[Box] | None) -> Verdict:
    if result.best is None:
        return Verdict.ABSTAINED
    if truth is None:
        return Verdict.FOUND
    if not truth:
        return Verdict.FALSE_ALARM
    return Verdict.HIT if (best_iou(result, truth) or 0.0) >= MIN_IOU else Verdict.MISS


def print_frames(rows: Sequence[FrameRow], console: Console, most: int = MAX_ROWS) -> None:
    """Print the first ``most`` rows, one line each, at least as narrow as 80 columns allow, and a summary."""
    shown = rows[:most]
    table = RichTable(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    cells = [_cells(row) for row in shown]
    names = ("frame", "phrase", "verdict", "score", "IoU", "ms", "box (x1 y1 x2 y2)")
    widths = [max(len(name), *(one[i].cell_len for one in cells), 0) for i, name in enumerate(names)]
    room = min(console.width, WIDTH) - sum(width + 2 for i, width in enumerate(widths) if i != 1) - 2
    widths[1] = max(MIN_PHRASE, min(widths[1], room))
    for name, width in zip(names, widths, strict=True):
        left = name in ("phrase", "verdict")
        table.add_column(name, justify="left" if left else "right", no_wrap=True, width=width)
    for one in cells:
        one[1].truncate(widths[1], overflow="ellipsis")
        table.add_row(*one)
    console.print(Text("Per frame", style="bold"))
    console.print(table)
    console.print()
    if len(rows) > most:
        console.print(Text(f"and {len(rows) - most:,} more rows in tables/per-frame.csv", style="dim"), soft_wrap=True)
    problems = [row for row in rows if row.problem]
    for row in problems[:MAX_NOTES]:
        said = f"frame {row.frame.number}, {row.phrase}: {one_line(row.problem)}"
        console.print(Text(printable(said), style=BAD), soft_wrap=True)
    if len(problems) > MAX_NOTES:
        console.print(Text(f"and {len(problems) - MAX_NOTES:,} more errors", style=BAD))
    for line in summary_lines(rows):
        console.print(Text(printable(line)))
    console.print()


def _cells(row: FrameRow) -> list[Text]:
    def number(value: float | None, digits: int) -> Text:
        return Text(DASH if value is None else f"{value:.{digits}f}")

    best = row.best
    box = " ".join(f"{v:.0f}" for v in best.box.as_tuple()) if best else DASH
    return [
        Text(str(row.frame.number)),
        Text(printable(row.phrase) or DASH),  # a Text: phrases come from outside, and a plain string would be markup
        Text(row.verdict, row.tone),
        number(row.score, 2),
        Text(DASH if row.iou is None else cut(row.iou)),
        number(row.latency_ms, 0),
        Text(box),
    ]


def summary_lines(rows: Sequence[FrameRow]) -> list[str]:
    """The rows in numbers: answered, right, IoU, latency; and what answered. Means are over the answered rows."""
    due = [row for row in rows if row.verdict not in (Verdict.NOT_ASKED, Verdict.NOT_REACHED)]
    answered = [row for row in due if row.result is not None]
    counts = [f"answered {len(answered)} of {len(due)} frames"]
    if len({row.frame.number for row in due}) < len(due):
        counts = [f"answered {len(answered)} of {len(due)} questions about {len({r.frame.number for r in due})} frames"]
    if not answered:
        return counts
    counts.append(f"{sum(row.best is None for row in answered)} of them without a box")
    ious = [row.iou for row in answered if row.iou is not None]
    if ious:
        share = float(np.mean([iou >= MIN_IOU for iou in ious]))
        counts.append(f"IoU >= {MIN_IOU} in {share:.0%}, mean IoU {float(np.mean(ious)):.2f}")
    times = [row.latency_ms for row in answered if row.latency_ms is not None]
    if times:
        counts.append(f"median {float(np.median(times)):.0f} ms")
    last = answered[-1].result
    made = f"model {last.model}, selector {last.selector}, score: {last.score_kind.value}" if last else ""
    return [", ".join(counts), made]


def per_frame_table(rows: Sequence[FrameRow]) -> Table:
    """All rows with their boxes, for a CSV file."""
    columns = (
        Column("frame", "count"),
        *(Column(name) for name in ("stamp", "phrase", "verdict")),
        *(Column(name, "ratio") for name in ("score", "quality")),
        Column("IoU", "iou"),
        *(Column(name, "ms") for name in ("latency ms", "x1", "y1", "x2", "y2")),
        Column("reason"),
    )
    return Table("per-frame", "Per frame", columns, tuple(TableRow(_record(row)) for row in rows))


def _record(row: FrameRow) -> tuple[Cell, ...]:
    best, result = row.best, row.result
    box: tuple[float | None, ...] = best.box.as_tuple() if best else (None,) * 4
    quality = result.candidates[best.candidate].quality if result and best else None
    reason = result.reason if result else row.problem
    values = (
        *(row.frame.number, row.frame.stamp, row.phrase, str(row.verdict)),
        *(row.score, quality, row.iou, row.latency_ms, *box, reason),
    )
    return tuple(Cell(value) for value in values)
