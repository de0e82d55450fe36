"""Files that a run writes besides its numbers: report frames, a bag for RViz or Foxglove, and frames to label."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.text import Text
from vision_msgs.msg import Detection2DArray

from acs_core.errors import ImageError
from acs_core.image import MAX_PIXELS
from acs_core.output import write_picture
from acs_core.output_folder import OutputFolder
from acs_core.pixels import MOST_BITS
from acs_core.terminal import make_console
from acs_ros.bags.bags import TRUTH_TOPIC, BagWriter
from acs_ros.bags.frames import FrameAt, show_stamp
from acs_ros.bags.reader import Bag
from acs_ros.conversions.detections import candidates_to_message, detection_to_message, detections_to_message
from acs_ros.conversions.images import encode_jpeg, header_of
from acs_ros.conversions.overlays import debug_picture
from acs_ros.errors import BagError
from acs_ros.replay.contact_sheet import ContactSheet
from acs_ros.replay.contents import Topics
from acs_ros.replay.material import look_at, topics_of
from acs_ros.replay.replies import FrameReplies, Replies, picture, recorded
from acs_ros.replay.schedule import GroundTruth

SIDE = 960  # longest side in pixels of the frames for the report
QUALITY = 90  # of JPEG: small objects must stay visible
EXTRACTED = ("images/*.png", "instances.json")


class Output:
    """Writes the bag ``folder/bag`` and the frames ``folder/frames/STAMP.jpg`` that the report shows, at most
    ``pictures`` of them, into an empty ``folder``.

    ``node`` is the name that the topics of the answers begin with; the last four parameters are those of
    :func:`acs_ros.replay.replies.picture`.
    """

    def __init__(
        self,
        folder: Path,
        storage: str,
        node: str,
        pictures: int,
        max_pixels: int,
        tiff: bool = False,
        bits: int = MOST_BITS,
        grey_16uc1: bool = False,
    ) -> None:
        self.bag, self.frames = folder / "bag", folder / "frames"
        self._storage, self._node, self._pictures = storage, node, pictures
        self._reading = max_pixels, tiff, bits, grey_16uc1
        self._kept = 0

    def write(
        self,
        bag: Bag,
        topics: Topics,
        replies: Replies,
        truth: GroundTruth,
        with_bag: bool = True,
        progress: Callable[[], None] = lambda: None,
        sheet: ContactSheet | None = None,
    ) -> None:
        """Write all frames that have answers, and draw the tiles of ``sheet``. ``progress`` is called for each frame.

        Raises:
            OSError: a file cannot be written.
        """
        self.frames.mkdir(parents=True)
        answered = {f.frame.number: f for f in replies.frames if any(k.result is not None for k in f.kept)}
        tiled = {row.frame.number for row in sheet.wanted} if sheet else set()
        shown = [f.frame for f in replies.frames if f.frame.number in answered or f.frame.number in tiled]
        with BagWriter(self.bag, self._storage) if with_bag and answered else nullcontext() as out:
            for frame, data in recorded(bag, topics, shown):
                try:
                    image = picture(data, topics, *self._reading)
                except ImageError:
                    continue  # live: the node's answer is there, but this picture cannot be drawn on
                if frame.number in answered:
                    self._frame(out, answered[frame.number], image, truth)
                if sheet and frame.number in tiled:
                    sheet.add(frame.number, image)
                progress()

    def picture_of(self, frame: FrameAt) -> str:
        """Path of a frame's picture, relative to the folder."""
        return f"{self.frames.name}/{frame.number:06d}_{frame.stamp}.jpg"

    def _frame(self, out: BagWriter | None, replies: FrameReplies, image: np.ndarray, truth: GroundTruth) -> None:
        frame = replies.frame
        if self._kept < self._pictures:
            self._kept += 1
            shown = PIL.Image.fromarray(image)
            shown.thumbnail((SIDE, SIDE), PIL.Image.Resampling.LANCZOS)
            shown.save(self.frames.parent / self.picture_of(frame), "JPEG", quality=QUALITY)
        if out is None:
            return
        header = header_of(*frame.key)
        results = [kept.result for kept in replies.kept if kept.result is not None]
        true = [truth.boxes(frame, result.phrase) or () for result in results]
        detections = Detection2DArray(header=header)
        time_ns = min(max(0, frame.time_ns), 2**62)  # a bag holds no others
        at = time_ns + int((replies.latency_ms or 0.0) * 1e6)
        if truth.knows(frame):
            labels = [detection_to_message(header, phrase, box, 1.0) for phrase, box in truth.labels(frame)]
            out.write(TRUTH_TOPIC, Detection2DArray(header=header, detections=labels), time_ns)
        for result in results:
            detections.detections += detections_to_message(header, result).detections
            out.write(f"{self._node}/candidates", candidates_to_message(header, result), at)
        out.write(f"{self._node}/detections", detections, at)
        drawn = encode_jpeg(debug_picture(image, results, true), header, QUALITY)
        out.write(f"{self._node}/debug_image/compressed", drawn, at)


@contextmanager
def steps(what: str, total: int | None) -> Iterator[Callable[[], None]]:
    """Show a progress bar on stderr inside the block, if that is a terminal; yields a function to call for every one of
    ``total`` steps."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = make_console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)


def extract(bag: Bag, options: argparse.Namespace, console: Console) -> int:
    """Write ``images/STAMP.png`` for every frame, and ``instances.json``, which lists them; returns the exit code.

    Frames that repeat a stamp are named after the one of their own, by which they are found again. An
    ``instances.json`` that is there already may have labels in it, and is not touched.

    Raises:
        BagError: there are no frames, or the folder is in use.
        OutputError: the folder holds files that acs did not write, or the bag.
        OSError: a file cannot be written.
    """
    folder: Path = options.extract
    if (folder / "instances.json").exists():
        raise BagError(f"{folder / 'instances.json'} exists already: it may have labels in it; name another folder")
    contents, topics = look_at(bag, options), topics_of(bag, options)
    entries: list[dict[str, Any]] = []
    repeated = Counter(frame.key[0] for frame in contents.frames)  # of several cameras in one topic
    bad = 0
    with (
        OutputFolder(folder, "acs-replay --extract", inputs=[bag.path], replaces=EXTRACTED) as out,
        out.stage(*EXTRACTED) as staged,
        steps("writing frames", len(contents.frames)) as advance,
    ):
        (staged / "images").mkdir()
        for frame, data in recorded(bag, topics, contents.frames):
            try:
                image = picture(data, topics, MAX_PIXELS)
            except ImageError:
                bad += 1
                continue
            stamp = show_stamp(frame.key[0])
            name = f"{frame.number:06d}_{stamp}.png" if repeated[frame.key[0]] > 1 else f"{stamp}.png"
            write_picture(staged / "images" / name, image, "acs-replay")
            height, width = image.shape[:2]
            entries.append(
                {"id": len(entries) + 1, "file_name": name, "width": width, "height": height, "stamp": stamp}
            )
            advance()
        content = {"images": entries, "categories": [], "annotations": []}
        (staged / "instances.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    notes = [*bag.notes, *contents.notes, *([f"{bad} frames cannot be decoded"] if bad else [])]
    for note in notes:
        console.print(Text(f"note: {note}", "yellow"), soft_wrap=True)
    console.print(Text(f"{len(entries)} frames in {folder / 'images'}; label them in {folder / 'instances.json'}"))
    console.print(Text(f"(the category is the phrase), then: acs-replay {bag.path} --coco {folder / 'instances.json'}"))
    return 0
