"""Accuracy of the tracker on a bag: ``python -m acs_ros.stress.track_check [BAG]``.

The images of the shipped bag show separate scenes, so each is made into a clip of a camera that pans, rotates and
approaches, with noise and changing light. The tracker gets the true box in the first frame, as the answer of a perfect
model after ``--latency`` seconds, and its later boxes are compared with the truth, as is a box that does not move.
"""

from __future__ import annotations

if __name__ == "__main__":  # first: a signal may come while the modules below are imported
    from acs_core.entry import run

    run("acs_ros.stress.track_check", "track_check")

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.table import Table

from acs_core.errors import AcsError
from acs_core.geometry import Box
from acs_core.option_types import StrictParser, real_option, whole_option
from acs_core.output import check_target, write_json
from acs_core.terminal import make_console, print_error
from acs_ros.bags.bags import DEMO_BAG, TRUTH_TOPIC, read_bag
from acs_ros.errors import BagError
from acs_ros.node.tracker import BoxTracker, TrackedQuery

HZ = 30.0
SIZE = (640, 480)
AGES = (0.5, 1.0, 2.0, 3.0)  # seconds since the frame that was answered
LONGEST_S = 2.9  # answers later than the last age are never measured
EXAMPLE = """example:
  python -m acs_ros.stress.track_check --latency 1.0 --json tracks.json"""


@dataclass(frozen=True)
class Clip:
    """Frames (T, 480, 640, 3) uint8 RGB at 30 per second, and the box of the object in each."""

    frames: list[np.ndarray]
    boxes: list[Box]


def make_clip(image: np.ndarray, box: Box, seconds: float, seed: int) -> Clip:
    """Simulate a camera that moves over an image. The object stays in view; the tracker gets no other information about
    the motion."""
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
    """Return the mean IoU with the truth by age, for the tracker and for a box that does not move, and the milliseconds
    per frame."""
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
                tracker.take_answer(0.0, ["it"], [TrackedQuery("it", clip.boxes[0], 1.0)])
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
    """Measure and print; returns the exit code."""
    options = make_parser().parse_args(arguments)
    try:
        if options.json:
            check_target(options.json)
        asked = [(f.image, f.truth[0][1]) for f in read_bag(options.bag) if f.truth][: options.frames or None]
        if not asked:
            raise BagError(f"{options.bag} has no frame with ground truth on {TRUTH_TOPIC}: name another bag")
    except AcsError as error:
        print_error("track_check", error)
        return 1
    seconds = max(AGES) + 0.1
    found = measure((make_clip(*one, seconds, seed) for seed, one in enumerate(asked)), options.latency)
    _show(found)
    if options.json:
        write_json(options.json, found, "acs-track-check")
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = StrictParser(prog="track_check", description=__doc__, epilog=EXAMPLE)
    add = parser.add_argument
    add("bag", type=Path, nargs="?", default=DEMO_BAG, help="bag with ground truth (the shipped one)")
    add("--frames", type=whole_option(1), default=0, metavar="N", help="only the first N pictures")
    add(
        "--latency",
        type=real_option(0, LONGEST_S),
        default=1.0,
        metavar="S",
        help=f"seconds an answer takes, at most {LONGEST_S:g} (1.0)",
    )
    add("--json", type=Path, metavar="FILE", help="write the numbers")
    return parser


def _show(found: dict[str, Any]) -> None:
    table = Table(title=f"{found['clips']} clips, answers after {found['latency_s']} s")
    for name in ("age, s", "tracked: IoU", "tracked: IoU >= 0.5", "stays: IoU", "stays: IoU >= 0.5"):
        table.add_column(name, justify="right")
    names = ("ages_s", "tracked_iou", "tracked_at_50", "stayed_iou", "stayed_at_50")
    for row in zip(*(found[name] for name in names), strict=True):
        table.add_row(f"{row[0]:g}", f"{row[1]:.2f}", f"{row[2]:.0%}", f"{row[3]:.2f}", f"{row[4]:.0%}")
    console = make_console()
    console.print(table)
    console.print(
        f"per frame {found['frame_ms_p50']:.1f} ms (p95 {found['frame_ms_p95']:.1f}), "
        f"per answer {found['answer_ms_p50']:.1f} ms"
    )
