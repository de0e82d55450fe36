"""What became of the frames, and the frames themselves once more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image

from acs_core.errors import ImageError
from acs_ros.frames import Frame
from acs_ros.replay.contents import FrameAt
from acs_ros.replay.journal import Kept
from acs_ros.replay.storage import Bag
from acs_ros.replay.topics import Topics


class Fate(StrEnum):
    """What became of a frame."""

    ANSWERED = "answered"
    FAILED = "failed"  # asked, and an error came instead of an answer
    DROPPED = "dropped"  # live: no answer, but a newer frame has one
    UNANSWERED = "unanswered"  # live: no answer, and none of a newer frame
    UNREADABLE = "unreadable"  # the picture cannot be decoded
    NOT_ASKED = "not_asked"  # no phrase was in force
    NOT_REACHED = "not_reached"  # the run was stopped before


@dataclass(frozen=True)
class FrameReplies:
    """A frame and its answers, by phrase in the order they were asked; none unless ANSWERED or FAILED."""

    frame: FrameAt
    fate: Fate
    phrases: tuple[str, ...] = ()
    kept: tuple[Kept, ...] = ()
    latency_ms: float | None = None


@dataclass(frozen=True)
class Replies:
    """All frames of the bag in its order. ``stopped`` by the user; ``problem``: why it broke off, if it did; ``facts``
    are for the report."""

    frames: tuple[FrameReplies, ...]
    stopped: bool = False
    problem: str = ""
    facts: dict[str, str] = field(default_factory=dict)

    def count(self, fate: Fate) -> int:
        """How many frames met this fate."""
        return sum(f.fate is fate for f in self.frames)


def recorded(bag: Bag, topics: Topics, frames: Sequence[FrameAt]) -> Iterator[tuple[FrameAt, bytes]]:
    """The recorded message of each of ``frames`` that are still there, in the order of the bag."""
    wanted = {frame.number: frame for frame in frames}
    for number, message in enumerate(bag.messages((topics.image,))):
        if number in wanted:
            yield wanted[number], message.data


def picture(data: bytes, topics: Topics, max_pixels: int) -> np.ndarray:
    """The (H, W, 3) uint8 RGB picture in a recorded message.

    Raises:
        ImageError: it cannot be decoded.
    """
    try:
        msg = deserialize_message(data, CompressedImage if topics.compressed else Image)
    except Exception as error:  # rclpy raises whatever its C++ side threw
        raise ImageError(f"the message is damaged: {error}") from error
    return Frame(msg).rgb(max_pixels)
