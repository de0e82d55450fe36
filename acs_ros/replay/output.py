"""The bag to open in RViz or Foxglove: what was answered, drawn on the frames, beside what is true."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import PIL.Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from acs_core.errors import ImageError
from acs_ros.bags import TRUTH_TOPIC, BagWriter
from acs_ros.frames import encode_jpeg
from acs_ros.messages import candidates_to_message, detection_to_message, detections_to_message
from acs_ros.pictures import debug_picture
from acs_ros.replay.asked import Truth
from acs_ros.replay.contents import NS, FrameAt
from acs_ros.replay.replies import FrameReplies, Replies, picture, recorded
from acs_ros.replay.storage import Bag
from acs_ros.replay.topics import Topics

SIDE = 960  # longest side in pixels of the frames for the report
QUALITY = 90  # of JPEG: small objects must stay to be seen


class Output:
    """Writes the bag ``folder/bag`` and the frames ``folder/frames/STAMP.jpg`` that the report shows, at most
    ``pictures`` of them. Those of an earlier run are replaced.

    ``node`` is the name that the topics of the answers begin with.
    """

    def __init__(self, folder: Path, storage: str, node: str, pictures: int, max_pixels: int) -> None:
        self.bag, self.frames = folder / "bag", folder / "frames"
        self._storage, self._node, self._pictures, self._max_pixels = storage, node, pictures, max_pixels
        self._kept = 0

    def write(
        self,
        bag: Bag,
        topics: Topics,
        replies: Replies,
        truth: Truth,
        with_bag: bool = True,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        """Write all frames that have answers. ``progress`` is called for each of them.

        Raises:
            OSError: a file cannot be written.
        """
        for old in (self.bag, self.frames):
            shutil.rmtree(old, ignore_errors=True)
        self.frames.mkdir(parents=True)
        answered = {f.frame.number: f for f in replies.frames if any(k.result is not None for k in f.kept)}
        with BagWriter(self.bag, self._storage) if with_bag else nullcontext() as out:
            for frame, data in recorded(bag, topics, [f.frame for f in answered.values()]):
                try:
                    self._frame(out, answered[frame.number], data, topics, truth)
                except ImageError:
                    continue  # live: the node's answer is there, but this picture cannot be drawn on
                progress()

    def picture_of(self, frame: FrameAt) -> str:
        """Where the picture of a frame lies, relative to the folder."""
        return f"{self.frames.name}/{frame.number:06d}_{frame.stamp}.jpg"

    def _frame(self, out: BagWriter | None, replies: FrameReplies, data: bytes, topics: Topics, truth: Truth) -> None:
        frame = replies.frame
        image = picture(data, topics, self._max_pixels)
        if self._kept < self._pictures:
            self._kept += 1
            shown = PIL.Image.fromarray(image)
            shown.thumbnail((SIDE, SIDE), PIL.Image.Resampling.LANCZOS)
            shown.save(self.frames.parent / self.picture_of(frame), "JPEG", quality=QUALITY)
        if out is None:
            return
        header = header_of(frame)
        results = [kept.result for kept in replies.kept if kept.result is not None]
        true = [truth.boxes(frame, result.phrase) or () for result in results]
        detections = Detection2DArray(header=header)
        at = frame.time_ns + int((replies.latency_ms or 0.0) * 1e6)
        if truth.knows(frame):
            labels = [detection_to_message(header, phrase, box, 1.0) for phrase, box in truth.labels(frame)]
            out.write(TRUTH_TOPIC, Detection2DArray(header=header, detections=labels), frame.time_ns)
        for result in results:
            detections.detections += detections_to_message(header, result).detections
            out.write(f"{self._node}/candidates", candidates_to_message(header, result), at)
        out.write(f"{self._node}/detections", detections, at)
        drawn = encode_jpeg(debug_picture(image, results, true), header, QUALITY)
        out.write(f"{self._node}/debug_image/compressed", drawn, at)


def header_of(frame: FrameAt) -> Header:
    """The header of the frame's image."""
    made = Header(frame_id=frame.frame_id)
    made.stamp.sec, made.stamp.nanosec = divmod(frame.stamp_ns, NS)
    return made
