"""What the demo shows at its end: the table, the annotated frames, one sheet of all of them, a JSON file."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from acs_core.geometry import Box
from acs_core.overlay import draw_result
from acs_core.types import GroundingResult
from acs_ros.answer import read_answer
from acs_ros.bags import BagFrame
from acs_ros.node_client import Reply

SHEET_COLUMNS = 6
GOOD_IOU = 0.5


@dataclass(frozen=True)
class Row:
    """One question: the frame's number, the phrase, the true box, and what was answered (None: nothing came).
    ``result`` is ``reply`` read: boxes and scores are those of ~/detections."""

    number: int
    frame: BagFrame
    phrase: str
    truth: Box
    reply: Reply | None
    result: GroundingResult | None

    @classmethod
    def of(cls, number: int, frame: BagFrame, phrase: str, truth: Box, reply: Reply | None) -> Row:
        """A row whose answer is read and checked.

        Raises:
            NodeTrouble: the reply is not about this frame and phrase, or its two messages disagree.
        """
        result = None if reply is None else read_answer(reply, frame.header, phrase)
        return cls(number, frame, phrase, truth, reply, result)

    @property
    def class_id(self) -> str | None:
        """What ~/detections calls the box; None without one."""
        found = None if self.reply is None else self.reply.detections.detections
        return str(found[0].results[0].hypothesis.class_id) if found else None

    @property
    def iou(self) -> float | None:
        """IoU of the best box with the truth; 0 for an abstention, None without an answer."""
        result = self.result
        if result is None:
            return None
        return result.best.box.iou(self.truth) if result.best else 0.0


@dataclass(frozen=True)
class Summary:
    """The demo in numbers; means are over the answered questions, None without any."""

    due: int
    answered: int
    abstained: int
    accuracy: float | None
    mean_iou: float | None
    median_ms: float | None
    model: str
    selector: str
    score_kind: str


def summarize(rows: Sequence[Row]) -> Summary:
    """Count and average."""
    answered = [(r, result) for r in rows if (result := r.result) is not None]
    ious = [r.iou or 0.0 for r, _ in answered]
    times = [r.reply.latency_ms for r, _ in answered if r.reply is not None]
    last = answered[-1][1] if answered else None
    return Summary(
        due=len(rows),
        answered=len(answered),
        abstained=sum(result.best is None for _, result in answered),
        accuracy=float(np.mean([i >= GOOD_IOU for i in ious])) if ious else None,
        mean_iou=float(np.mean(ious)) if ious else None,
        median_ms=float(np.median(times)) if times else None,
        model=last.model if last else "",
        selector=last.selector if last else "",
        score_kind=last.score_kind.value if last else "",
    )


def print_table(console: Console, rows: Sequence[Row]) -> None:
    """One line per question."""
    table = Table(title="What the node answered")
    for name in ("frame", "phrase", "box (x1 y1 x2 y2)", "quality", "score", "IoU", "ms"):
        table.add_column(name, justify="left" if name == "phrase" else "right", no_wrap=name != "phrase")
    for row in rows:
        table.add_row(*_cells(row))
    console.print(table)


def _cells(row: Row) -> list[Text]:
    # Texts, because a plain string is read as markup, and phrases come from outside.
    head = [Text(str(row.number)), Text(row.class_id or row.phrase)]
    result = row.result
    if row.reply is None or result is None:
        return [*head, Text("no answer", "red")]
    ms = Text(f"{row.reply.latency_ms:.0f}")
    if result.best is None:
        return [*head, Text("abstained", "yellow"), Text(), Text(), Text(), ms]
    best, iou = result.best, row.iou or 0.0
    box = " ".join(f"{v:.0f}" for v in best.box.as_tuple())
    color = "green" if iou >= GOOD_IOU else "yellow" if iou > 0 else "red"
    quality = result.candidates[best.candidate].quality
    return [*head, Text(box), Text(f"{quality:.3f}"), Text(f"{best.score:.2f}"), Text(f"{iou:.2f}", color), ms]


def print_summary(console: Console, summary: Summary) -> None:
    """Two lines under the table."""
    console.print(f"answered [bold]{summary.answered} of {summary.due}[/bold] frames", end="")
    if summary.accuracy is not None and summary.mean_iou is not None and summary.median_ms is not None:
        console.print(
            f", {summary.abstained} of them without a box; IoU >= {GOOD_IOU} in {summary.accuracy:.0%}, "
            f"mean IoU {summary.mean_iou:.2f}, median {summary.median_ms:.0f} ms"
        )
        console.print(Text(f"model {summary.model}, selector {summary.selector}, score: {summary.score_kind}"))
    else:
        console.print()


def write_pictures(folder: Path, rows: Sequence[Row]) -> Path:
    """Write ``frame_NNN_PHRASE.png`` for every answered question and ``contact_sheet.png``; the sheet's path.

    Raises:
        OSError: a picture cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for row in rows:
        result = row.result
        picture = row.frame.image if result is None else draw_result(row.frame.image, result, [row.truth])
        drawn.append(picture)
        name = re.sub(r"[^a-zA-Z0-9]+", "_", row.phrase).strip("_")[:40]
        _write(folder / f"frame_{row.number:03d}_{name}.png", picture)
    sheet = folder.parent / "contact_sheet.png"
    _write(sheet, contact_sheet(drawn))
    return sheet


def contact_sheet(pictures: Sequence[np.ndarray], columns: int = SHEET_COLUMNS, side: int = 320) -> np.ndarray:
    """All pictures, each (H, W, 3) uint8 RGB, scaled to ``side`` pixels width and laid in rows, each as high as its
    highest picture."""
    gap = 4
    rows = []
    for first in range(0, len(pictures), columns):
        scaled = [
            cv2.resize(p, (side, max(1, round(p.shape[0] * side / p.shape[1]))), interpolation=cv2.INTER_AREA)
            for p in pictures[first : first + columns]
        ]
        row = np.zeros((max(p.shape[0] for p in scaled) + gap, columns * (side + gap), 3), dtype=np.uint8)
        for column, picture in enumerate(scaled):
            left = column * (side + gap)
            row[: picture.shape[0], left : left + side] = picture
        rows.append(row)
    return np.vstack(rows or [np.zeros((side + gap, side + gap, 3), dtype=np.uint8)])


def write_json(file: Path, rows: Sequence[Row], summary: Summary) -> None:
    """Everything of the table and the summary, for scripts."""
    file.write_text(json.dumps({"summary": asdict(summary), "frames": [_record(r) for r in rows]}, indent=2) + "\n")


def _record(row: Row) -> dict[str, Any]:
    result = row.result
    record: dict[str, Any] = {"frame": row.number, "phrase": row.phrase, "truth": row.truth.as_tuple()}
    if row.reply is None or result is None:
        return {**record, "answered": False}
    best = result.best
    return {
        **record,
        "answered": True,
        "class_id": row.class_id,
        "box": best.box.as_tuple() if best else None,
        "quality": result.candidates[best.candidate].quality if best else None,
        "score": best.score if best else None,
        "iou": row.iou,
        "latency_ms": row.reply.latency_ms,
        "reason": result.reason,
    }


def _write(file: Path, rgb: np.ndarray) -> None:
    if not cv2.imwrite(str(file), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)):
        raise OSError(f"cannot write {file}")
