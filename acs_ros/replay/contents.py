"""What a bag holds besides pixels: when each frame was taken, what was asked, what is true. Read in one pass."""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from rclpy.serialization import deserialize_message
from std_msgs.msg import String
from vision_msgs.msg import Detection2DArray

from acs_core.errors import PhraseError
from acs_core.geometry import Box
from acs_core.phrase import clean_phrase
from acs_ros.bags import stamp_ns
from acs_ros.messages import box_from_message
from acs_ros.replay.storage import Bag
from acs_ros.replay.topics import Topics

NS = 1_000_000_000


@dataclass(frozen=True)
class FrameAt:
    """A frame: the ``number``-th message of its topic, from 0, recorded at ``time_ns``, with the header's stamp."""

    number: int
    time_ns: int
    stamp_ns: int
    frame_id: str

    @property
    def stamp(self) -> str:
        """Like "1700000000.000000005": seconds, and nine digits of nanoseconds."""
        return show_stamp(self.stamp_ns)

    @property
    def key(self) -> tuple[int, str]:
        """What answers and truth are matched by: stamp and frame_id."""
        return self.stamp_ns, self.frame_id


Labels = tuple[tuple[str, Box], ...]  # phrases and the boxes they name


@dataclass(frozen=True)
class Contents:
    """``queries`` are pairs of the time and the text, in order; ``truth`` has the labels of each stamp and frame_id.
    ``unreadable`` counts messages that could not be decoded, by topic."""

    frames: tuple[FrameAt, ...]
    queries: tuple[tuple[int, str], ...]
    truth: Mapping[tuple[int, str], Labels]
    unreadable: Mapping[str, int]


def show_stamp(ns: int) -> str:
    """A stamp of nanoseconds as seconds and nine digits."""
    return f"{ns // NS}.{ns % NS:09d}"


def read_contents(bag: Bag, topics: Topics, progress: Callable[[], None] = lambda: None) -> Contents:
    """Look through the bag once. ``progress`` is called for every frame."""
    frames: list[FrameAt] = []
    queries: list[tuple[int, str]] = []
    truth: dict[tuple[int, str], Labels] = {}
    unreadable: Counter[str] = Counter()
    number = -1
    for topic, time_ns, data in bag.messages(topics.named):
        try:
            if topic == topics.image:
                number += 1
                stamp, frame_id = peek_header(data)
                frames.append(FrameAt(number, time_ns, stamp, frame_id))
                progress()
            elif topic == topics.truth:
                found = deserialize_message(data, Detection2DArray)
                key = stamp_ns(found.header), found.header.frame_id
                truth[key] = truth.get(key, ()) + tuple(_labels(found))
            else:
                queries.append((time_ns, deserialize_message(data, String).data))
        except Exception:  # rclpy raises whatever its C++ side threw
            unreadable[topic] += 1
    return Contents(tuple(frames), tuple(queries), truth, dict(unreadable))


def peek_header(data: bytes) -> tuple[int, str]:
    """Stamp in nanoseconds and frame_id of a serialized message that begins with a std_msgs/Header; nothing else of it
    is decoded.

    Raises:
        ValueError: it is too short, or what it begins with is no header in CDR.
    """
    if len(data) < 16 or data[0] != 0 or data[1] not in (0, 1):
        raise ValueError("no header in CDR")
    order = "<" if data[1] else ">"
    seconds, nanoseconds, length = struct.unpack_from(f"{order}iII", data, 4)
    text = data[16 : 16 + length]
    if nanoseconds >= NS or len(text) != length or not text.endswith(b"\0"):
        raise ValueError("no header in CDR")
    return seconds * NS + nanoseconds, text[:-1].decode()


def _labels(found: Detection2DArray) -> Iterator[tuple[str, Box]]:
    for detection in found.detections:
        if detection.results:
            try:
                phrase = clean_phrase(detection.results[0].hypothesis.class_id)
            except PhraseError:
                continue  # a label without a name names nothing
            box = box_from_message(detection.bbox)
            if box.area > 0 and math.isfinite(box.area):
                yield phrase, box
