"""Answers to the frames of a bag, matched by stamp and frame_id, and the outcome of frames without one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from acs_msgs.msg import CandidateArray
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Detection2D, Detection2DArray

from acs_core.errors import ImageError
from acs_core.pixels import MOST_BITS
from acs_core.types import Candidate, Detection, GroundingResult, Outcome, ScoreKind
from acs_ros.bags.frames import FrameAt
from acs_ros.bags.reader import Bag
from acs_ros.client.node_client import FrameReply, read_answer
from acs_ros.conversions.detections import box_from_message
from acs_ros.conversions.images import Frame, stamp_ns
from acs_ros.errors import NodeTrouble
from acs_ros.replay.contents import Topics
from acs_ros.replay.journal import Kept

Key = tuple[int, str]  # stamp in nanoseconds, frame_id


class Fate(StrEnum):
    """Outcome of a frame."""

    ANSWERED = "answered"
    FAILED = "failed"  # asked, and an error came instead of an answer; live: an answer that contradicts itself
    DROPPED = "dropped"  # live: no answer, but a newer frame has one
    UNANSWERED = "unanswered"  # live: no answer, and none of a newer frame
    UNREADABLE = "unreadable"  # the picture cannot be decoded
    NOT_ASKED = "not_asked"  # no phrase was in force
    NOT_REACHED = "not_reached"  # the run was stopped before


@dataclass(frozen=True)
class FrameReplies:
    """A frame and its answers in the order of ``phrases``; none unless it was ANSWERED or FAILED."""

    frame: FrameAt
    fate: Fate
    phrases: tuple[str, ...] = ()
    kept: tuple[Kept, ...] = ()
    latency_ms: float | None = None


@dataclass(frozen=True)
class Replies:
    """All frames of the bag in its order. ``stopped``: by the user; ``problem``: why the run broke off, or "";
    ``facts`` are for the report."""

    frames: tuple[FrameReplies, ...]
    stopped: bool = False
    problem: str = ""
    facts: dict[str, str] = field(default_factory=dict)

    def count(self, fate: Fate) -> int:
        """Number of frames with this outcome."""
        return sum(f.fate is fate for f in self.frames)


def recorded(bag: Bag, topics: Topics, frames: Sequence[FrameAt]) -> Iterator[tuple[FrameAt, bytes]]:
    """Yield each of ``frames`` that can still be read, with its serialized message, in the order of the bag."""
    wanted = {frame.number: frame for frame in frames}
    for number, message in enumerate(bag.messages((topics.image,))):
        if number in wanted:
            yield wanted[number], message.data


def picture(
    data: bytes,
    topics: Topics,
    max_pixels: int,
    tiff: bool = False,
    bits: int = MOST_BITS,
    grey_16uc1: bool = False,
) -> np.ndarray:
    """The (H, W, 3) uint8 RGB picture in a recorded message; the parameters are those of
    :meth:`acs_ros.conversions.images.Frame.rgb`.

    Raises:
        ImageError: it cannot be decoded.
    """
    try:
        msg = deserialize_message(data, CompressedImage if topics.compressed else Image)
    except Exception as error:  # rclpy raises whatever its C++ side threw
        raise ImageError(f"the message is damaged: {error}") from error
    return Frame(msg).rgb(max_pixels, tiff, bits, grey_16uc1)


@dataclass(frozen=True)
class Sent:
    """A published frame with the phrases in force, and the steady time ``at`` in seconds."""

    frame: FrameAt
    phrases: tuple[str, ...]
    at: float


@dataclass(frozen=True)
class Heard:
    """Detections received at the steady time ``at`` in seconds."""

    msg: Detection2DArray
    at: float


def key_of(msg: Detection2DArray | CandidateArray) -> Key:
    """Key by which an answer is matched with its frame."""
    return stamp_ns(msg.header), msg.header.frame_id


def fates(sent: Sequence[Key], answered: Iterable[Key]) -> list[Fate]:
    """Outcome of each frame, in the order of publishing. The node keeps only the newest frame: frames without an answer
    are dropped where a newer one was answered, and unanswered otherwise."""
    done = set(answered)
    last = max((i for i, key in enumerate(sent) if key in done), default=-1)
    return [
        Fate.ANSWERED if key in done else Fate.DROPPED if i < last else Fate.UNANSWERED for i, key in enumerate(sent)
    ]


def match(sent: Sequence[Sent], heard: Sequence[Heard], candidates: Sequence[CandidateArray]) -> list[FrameReplies]:
    """Match published frames with answers. Only the first answer about a frame counts.

    A frame is answered when detections came for it and, where ``candidates`` were heard at all, they tell that all its
    phrases were asked: an answer to a query that came later is none.
    """
    first: dict[Key, Heard] = {}
    for one in heard:
        first.setdefault(key_of(one.msg), one)
    told = {(key_of(c), c.phrase): c for c in reversed(candidates)}
    complete = {
        s.frame.key
        for s in sent
        if s.frame.key in first and (not candidates or all((s.frame.key, p) in told for p in s.phrases))
    }
    replies = []
    for s, fate in zip(sent, fates([s.frame.key for s in sent], complete), strict=True):
        if fate is not Fate.ANSWERED:
            replies.append(FrameReplies(s.frame, fate, s.phrases))
            continue
        answer = first[s.frame.key]
        latency = (answer.at - s.at) * 1000
        kept = tuple(_kept(answer.msg, p, told.get((s.frame.key, p)), latency) for p in s.phrases)
        if any(k.result is None for k in kept):
            fate = Fate.FAILED
        replies.append(FrameReplies(s.frame, fate, s.phrases, kept, latency))
    return replies


def _kept(msg: Detection2DArray, phrase: str, told: CandidateArray | None, latency_ms: float) -> Kept:
    """Answer to one phrase: boxes and scores of ~/detections, with the details of ~/candidates."""
    found = [d for d in msg.detections if d.results and d.results[0].hypothesis.class_id == phrase]
    if told is None:
        return Kept(_bare(found, phrase), latency_ms)
    try:
        reply = FrameReply(Detection2DArray(header=msg.header, detections=found), told, latency_ms)
        return Kept(read_answer(reply, msg.header, phrase), latency_ms)
    except (NodeTrouble, ValueError) as error:
        return Kept(None, latency_ms, str(error))


def _bare(found: Sequence[Detection2D], phrase: str) -> GroundingResult:
    """Result of a node that publishes no candidates, so that the kind of its scores is unknown."""
    pairs = [(box_from_message(d.bbox), float(d.results[0].hypothesis.score)) for d in found]
    chosen = [
        Candidate(box, phrase, 0, i, (0, 0, 0, 0), score, score, i, Outcome.SELECTED)
        for i, (box, score) in enumerate(pairs)
    ]
    detections = tuple(Detection(box, score, i) for i, (box, score) in enumerate(pairs))
    reason = "" if found else "nothing was published for it"
    kind = ScoreKind.RANK_RELATIVE
    return GroundingResult(phrase, (0, 0), detections, tuple(chosen), (), "?", kind, "?", None, 0, reason)
