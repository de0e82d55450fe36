"""Tables and numbers of a run: outcomes of frames, latency, scores, and results by phrase."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from acs_core.evaluation.outcomes import MIN_IOU
from acs_core.evaluation.rows import percent
from acs_core.evaluation.table import IN_BRACKETS, Cell, Column, Table, TableRow, cut
from acs_core.evaluation.tables import Assessed
from acs_ros.replay.evaluation import Item
from acs_ros.replay.frame_table import best_iou
from acs_ros.replay.replies import Fate, Replies

WORDS = {
    Fate.ANSWERED: "answered",
    Fate.FAILED: "failed: an error came instead of an answer",
    Fate.DROPPED: "dropped: a newer frame was answered instead",
    Fate.UNANSWERED: "unanswered: no answer, nor one to a newer frame",
    Fate.UNREADABLE: "unreadable: the picture cannot be decoded",
    Fate.NOT_ASKED: "not asked: no phrase was in force",
    Fate.NOT_REACHED: "not reached: the run was stopped",
}
PERCENTILES = (50, 90, 95, 99)


def frames_table(replies: Replies) -> Table:
    """Table of the outcomes of the frames."""
    total = len(replies.frames)
    rows = [_count(words, replies.count(fate), total) for fate, words in WORDS.items() if replies.count(fate)]
    columns = Column("frames"), Column("count", "count"), Column("%", "percent")
    return Table("frames", f"What became of {total} frames", columns, tuple(rows))


def latency_table(replies: Replies, live: bool) -> Table | None:
    """Table of latency percentiles over answered frames; None where none was measured."""
    times = latencies(replies)
    if not times:
        return None
    columns = Column("frames", "count"), *(Column(f"p{p}", "ms") for p in PERCENTILES), Column("longest", "ms")
    values = (Cell(len(times)), *(Cell(float(np.percentile(times, p))) for p in PERCENTILES), Cell(max(times)))
    what = (
        "from publishing the frame to having its detections" if live else "of the call about a frame, all its phrases"
    )
    return Table("frame-latency", "Latency in milliseconds", columns, (TableRow(values),), (f"Wall time {what}.",))


def scores_table(assessed: Assessed) -> Table | None:
    """Table of the scores of each group of questions; None where nothing is labelled."""
    rows = []
    for measured in assessed.measured:
        (scores,) = measured.scores
        calibration = measured.calibration(0)
        shares = scores.accuracy, scores.miou, scores.precision, scores.recall, scores.f1
        error = Cell(100 * calibration.error if calibration else None)
        name = Cell(measured.group.name), Cell(len(measured.group.questions))
        rows.append(TableRow((*name, *(percent(share) for share in shares), error)))
    columns = (
        Column("questions about"),
        Column("count", "count"),
        *(Column(f"{name} %", "percent") for name in ("Acc@0.5", "mIoU", "precision", "recall", "F1")),
        Column("ECE %", "percent"),
    )
    notes = (
        "A box is right from an IoU of 0.5 on. Precision, recall and F1 count boxes; ECE is the calibration error of "
        "the score.",
        f"{IN_BRACKETS}: 95 % bootstrap interval over frames.",
    )
    return Table("scores", "How good the answers are", columns, tuple(rows), notes) if rows else None


def latencies(replies: Replies) -> list[float]:
    """Latencies of the answered frames in milliseconds, where they were measured."""
    return [f.latency_ms for f in replies.frames if f.latency_ms is not None and f.fate is Fate.ANSWERED]


def phrases_table(items: Sequence[Item]) -> Table:
    """Table of results by phrase, the most frequent first; accuracy over the frames whose labels show the object."""
    phrases = sorted({i.phrase for i in items}, key=lambda p: (-sum(i.phrase == p for i in items), p))
    rows = [_phrase([i for i in items if i.phrase == phrase], phrase) for phrase in phrases]
    if len(phrases) > 1:
        rows.append(_phrase(items, "all"))
    none_failed = all(i.kept.result is not None for i in items)
    columns = (
        Column("phrase"),
        Column("asked", "count"),
        Column("boxes", "count"),
        Column("abstained", "count"),
        Column("failed", "count", spare=1 if none_failed else 2),
        Column("mean score", "ratio"),
        Column("labelled", "count", spare=2 if none_failed else 1),
        Column("Acc@0.5 %", "percent"),
        Column("mIoU %", "percent"),
    )
    notes = ("Accuracy is that of the best box, over the frames whose labels show the thing; no box counts as IoU 0.",)
    if not any(i.truth for i in items):
        cause = "there is no ground truth for the phrases" if items else "no frame was answered"
        notes = (f"Accuracy is unknown: {cause}.",)
    return Table("phrases", "By phrase", columns, tuple(rows), notes)


def _phrase(items: Sequence[Item], name: str) -> TableRow:
    results = [i.kept.result for i in items if i.kept.result is not None]
    best = [r.best for r in results if r.best is not None]
    ious = [iou for i in items if (iou := iou_of(i)) is not None]
    return TableRow(
        (
            Cell(name),
            Cell(len(items)),
            Cell(len(best)),
            Cell(len(results) - len(best)),
            Cell(len(items) - len(results)),
            Cell(float(np.mean([b.score for b in best])) if best else None),
            Cell(len(ious)),
            Cell(100 * float(np.mean([iou >= MIN_IOU for iou in ious])) if ious else None),
            Cell(100 * float(np.mean(ious)) if ious else None),
        )
    )


def iou_of(item: Item) -> float | None:
    """IoU of the best box with the true box it fits best, 0 without a box; None where the labels show no such thing,
    or there are none."""
    return best_iou(item.kept.result, item.truth)


def facts_of(replies: Replies, items: Sequence[Item]) -> dict[str, str]:
    """Counts and latencies as texts, for the report."""
    abstained = sum(i.kept.result is not None and not i.kept.result.detections for i in items)
    found = {f"frames {fate.replace('_', ' ')}": str(replies.count(fate)) for fate in WORDS if replies.count(fate)}
    found |= {"questions": str(len(items)), "abstained": str(abstained)}
    if times := latencies(replies):
        found["latency"] = ", ".join(f"p{p} {np.percentile(times, p):.0f} ms" for p in PERCENTILES)
    return {"frames": str(len(replies.frames)), **found}


def as_json(replies: Replies, items: Sequence[Item]) -> dict[str, Any]:
    """Counts, latencies, and every question with its answer, as JSON values."""
    times = latencies(replies)
    return {
        "frames": {"total": len(replies.frames), **{fate.value: replies.count(fate) for fate in Fate}},
        "latency_ms": {f"p{p}": round(float(np.percentile(times, p)), 3) for p in PERCENTILES} if times else None,
        "questions": [_record(item) for item in items],
    }


def _record(item: Item) -> dict[str, Any]:
    result = item.kept.result
    best = result.best if result else None
    iou = iou_of(item)
    return {
        "stamp": item.frame.stamp,
        "frame": item.frame.number,
        "phrase": item.phrase,
        "answered": result is not None,
        "box": [round(v, 3) for v in best.box.as_tuple()] if best else None,
        "score": best.score if best else None,
        "reason": item.kept.problem if result is None else result.reason,
        "latency_ms": item.kept.latency_ms,
        "truth": None if item.truth is None else [list(b.as_tuple()) for b in item.truth],
        "iou": None if iou is None else float(cut(iou, 4)),
    }


def _count(words: str, count: int, total: int) -> TableRow:
    return TableRow((Cell(words), Cell(count), Cell(100 * count / total if total else None)))
