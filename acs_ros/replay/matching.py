"""Which answer belongs to which frame, by header stamp and frame_id; and what became of frames without one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from acs_msgs.msg import CandidateArray
from vision_msgs.msg import Detection2D, Detection2DArray

from acs_core.types import Candidate, Detection, GroundingResult, Outcome, ScoreKind
from acs_ros.answer import read_answer
from acs_ros.bags import stamp_ns
from acs_ros.messages import box_from_message
from acs_ros.node_client import NodeTrouble, Reply
from acs_ros.replay.contents import FrameAt
from acs_ros.replay.journal import Kept
from acs_ros.replay.replies import Fate, FrameReplies

Key = tuple[int, str]  # stamp in nanoseconds, frame_id


@dataclass(frozen=True)
class Sent:
    """A frame as it was published: what was in force, and the steady seconds when it left."""

    frame: FrameAt
    phrases: tuple[str, ...]
    at: float


@dataclass(frozen=True)
class Heard:
    """Detections that came at ``at`` steady seconds."""

    msg: Detection2DArray
    at: float


def key_of(msg: Detection2DArray | CandidateArray) -> Key:
    """What an answer is matched by."""
    return stamp_ns(msg.header), msg.header.frame_id


def fates(sent: Sequence[Key], answered: Iterable[Key]) -> list[Fate]:
    """What became of each frame, in the order they were published. Between its newest answer and what it was asked, a
    node that keeps only the newest frame has dropped all others; those after the last answer it owes."""
    done = set(answered)
    last = max((i for i, key in enumerate(sent) if key in done), default=-1)
    return [
        Fate.ANSWERED if key in done else Fate.DROPPED if i < last else Fate.UNANSWERED for i, key in enumerate(sent)
    ]


def match(sent: Sequence[Sent], heard: Sequence[Heard], candidates: Sequence[CandidateArray]) -> list[FrameReplies]:
    """The replies to published frames. Only the first answer about a frame counts.

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
    """The boxes and scores of ~/detections, which a robot acts on, with what ~/candidates says about them."""
    found = [d for d in msg.detections if d.results and d.results[0].hypothesis.class_id == phrase]
    if told is None:
        return Kept(_bare(found, phrase), latency_ms)
    try:
        reply = Reply(Detection2DArray(header=msg.header, detections=found), told, latency_ms)
        return Kept(read_answer(reply, msg.header, phrase), latency_ms)
    except (NodeTrouble, ValueError) as error:
        return Kept(None, latency_ms, str(error))


def _bare(found: Sequence[Detection2D], phrase: str) -> GroundingResult:
    """Of a node that publishes no candidates; what its scores mean is not known."""
    pairs = [(box_from_message(d.bbox), float(d.results[0].hypothesis.score)) for d in found]
    chosen = [
        Candidate(box, phrase, 0, i, (0, 0, 0, 0), score, score, i, Outcome.SELECTED)
        for i, (box, score) in enumerate(pairs)
    ]
    detections = tuple(Detection(box, score, i) for i, (box, score) in enumerate(pairs))
    reason = "" if found else "nothing was published for it"
    kind = ScoreKind.RANK_RELATIVE
    return GroundingResult(phrase, (0, 0), detections, tuple(chosen), (), "?", kind, "?", None, 0, reason)
