"""Measures the tracker on a bag: ``python -m acs_ros.track_check [BAG]``.

The pictures of the shipped bag are of separate scenes, so each is made into a clip: a camera that pans, turns and comes
closer, with noise and changing light. The tracker is given the true box in the first frame, as the answer of a perfect
model that takes ``--latency`` seconds, and what it says later is compared with the truth, beside a box that stays.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from acs_core.geometry import Box
from acs_ros.bags import DEMO_BAG, BagError, read_bag
from acs_ros.tracking import BoxTracker, Seen

HZ = 30.0
SIZE = (640, 480)
AGES = (0.5, 1.0, 2.0, 3.0)  # seconds since the frame that was answered
EXAMPLE = """example:
  python -m acs_ros.track_check --latency 1.0 --json tracks.json"""


@dataclass(frozen=True)
class Clip:
    """Frames (T, 480, 640, 3) uint8 RGB at 30 a second, and where the object is in each."""

    frames: list[np.ndarray]
    boxes: list[Box]


def make_clip(image: np.ndarray, box: Box, seconds: float, seed: int) -> Clip:
    """A camera's way over a picture. The object stays in view; nothing else about the way is known to the tracker."""
    rng = np.random.default_rng(seed)
    height, width = image.shape[:2]
    fit = max(SIZE[0] / width, SIZE[1] / height) * 1.15
    cx, cy = box.center
    drift, phase = rng.uniform(-60, 60, 2), rng.uniform(0, 2 * np.pi, 2)
    turn, closer = rng.uniform(-8, 8), rng.uniform(-0.1, 0.25)
    frames, boxes = [], []
    for i in range(round(seconds * HZ)):
        t = i / HZ / seconds
        zoom = fit * (1 + closer * t)
        sway = 12 * np.sin(2 * np.pi * 3 * t + phase)
        x, y = SIZE[0] / 2 + drift[0] * t + sway[0], SIZE[1] / 2 + drift[1] * t + sway[1]
        matrix = cv2.getRotationMatrix2D((cx, cy), turn * t, zoom)
        matrix[:, 2] += (x - cx, y - cy)
        frame = cv2.warpAffine(image, matrix, SIZE, borderMode=cv2.BORDER_REFLECT).astype(np.float32)
        frame = frame * (1 + 0.1 * np.sin(2 * np.pi * t)) + rng.normal(0, 4, frame.shape)
        frames.append(np.clip(frame, 0, 255).astype(np.uint8))
        boxes.append(Box(x - box.width * zoom / 2, y - box.height * zoom / 2, *(_ends(x, y, box, zoom))))
    return Clip(frames, boxes)


def _ends(x: float, y: float, box: Box, zoom: float) -> tuple[float, float]:
    return x + box.width * zoom / 2, y + box.height * zoom / 2


def measure(clips: Iterator[Clip], latency: float) -> dict[str, Any]:
    """Mean IoU with the truth by age, for the tracker and for a box that stays; milliseconds per frame."""
    tracked: dict[float, list[float]] = {age: [] for age in AGES}
    stayed: dict[float, list[float]] = {age: [] for age in AGES}
    frame_ms: list[float] = []
    answer_ms: list[float] = []
    count = 0
    for clip in clips:
        count += 1
        tracker = BoxTracker(half_life=1e9, min_score=0.0)
        for i, (frame, truth) in enumerate(zip(clip.frames, clip.boxes, strict=True)):
            began = time.perf_counter()
            tracks = tracker.take_frame(i / HZ, frame)
            frame_ms.append((time.perf_counter() - began) * 1e3)
            if i == round(latency * HZ):
                began = time.perf_counter()
                tracker.take_answer(0.0, ["it"], [Seen("it", clip.boxes[0], 1.0)])
                answer_ms.append((time.perf_counter() - began) * 1e3)
            for age in AGES:
                if i == round(age * HZ) and age > latency:
                    tracked[age].append(tracks[0].box.iou(truth) if tracks else 0.0)
                    stayed[age].append(clip.boxes[0].iou(truth))
    ages = [age for age in AGES if tracked[age]]
    return {
        "clips": count,
        "latency_s": latency,
        "ages_s": ages,
        "tracked_iou": [float(np.mean(tracked[a])) for a in ages],
        "tracked_at_50": [float(np.mean(np.array(tracked[a]) >= 0.5)) for a in ages],
        "stayed_iou": [float(np.mean(stayed[a])) for a in ages],
        "stayed_at_50": [float(np.mean(np.array(stayed[a]) >= 0.5)) for a in ages],
        "frame_ms_p50": float(np.percentile(frame_ms, 50)),
        "frame_ms_p95": float(np.percentile(frame_ms, 95)),
        "answer_ms_p50": float(np.percentile(answer_ms, 50)) if answer_ms else 0.0,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code."""
    parser = argparse.ArgumentParser(
        prog="track_check", description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bag", type=Path, nargs="?", default=DEMO_BAG, help="bag with ground truth (the shipped one)")
    parser.add_argument("--frames", type=int, default=0, metavar="N", help="only the first N pictures")
    parser.add_argument("--latency", type=float, default=1.0, metavar="S", help="seconds an answer takes (1.0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers")
    options = parser.parse_args(arguments)
    try:
        asked = [(f.image, f.truth[0][1]) for f in read_bag(options.bag) if f.truth][: options.frames or None]
    except BagError as error:
        print(f"track_check: {error}", file=sys.stderr)
        return 1
    if not asked or not 0 <= options.latency < max(AGES):
        print(f"track_check: no truth in {options.bag}, or a latency not in [0, {max(AGES):g})", file=sys.stderr)
        return 1
    seconds = max(AGES) + 0.1
    found = measure((make_clip(*one, seconds, seed) for seed, one in enumerate(asked)), options.latency)
    _show(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def _show(found: dict[str, Any]) -> None:
    table = Table(title=f"{found['clips']} clips, answers after {found['latency_s']} s")
    for name in ("age, s", "tracked: IoU", "tracked: IoU >= 0.5", "stays: IoU", "stays: IoU >= 0.5"):
        table.add_column(name, justify="right")
    names = ("ages_s", "tracked_iou", "tracked_at_50", "stayed_iou", "stayed_at_50")
    for row in zip(*(found[name] for name in names), strict=True):
        table.add_row(f"{row[0]:g}", f"{row[1]:.2f}", f"{row[2]:.0%}", f"{row[3]:.2f}", f"{row[4]:.0%}")
    console = Console()
    console.print(table)
    console.print(
        f"per frame {found['frame_ms_p50']:.1f} ms (p95 {found['frame_ms_p95']:.1f}), "
        f"per answer {found['answer_ms_p50']:.1f} ms"
    )


if __name__ == "__main__":
    sys.exit(main())
