"""What was sent to a node, and whether what comes back belongs to it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from acs_msgs.msg import CandidateArray
from vision_msgs.msg import Detection2DArray

from acs_ros.bags import stamp_ns
from acs_ros.messages import box_from_message

KEPT = 20_000  # frames that are remembered
FOREVER = 2**63
EDGE_PX = 1e-3  # how far a box may reach over the picture's edge by rounding


@dataclass(frozen=True)
class SentFrame:
    """A frame as it was published. ``frame_id`` is its own alone; ``at_ns``: system time."""

    frame_id: str
    width: int
    height: int
    at_ns: int


@dataclass
class Span:
    """From when to when something held, in nanoseconds of system time."""

    begin: int
    end: int = FOREVER

    def holds(self, at: int) -> bool:
        """Whether it held then."""
        return self.begin <= at <= self.end


@dataclass
class Promises:
    """Holds answers against questions. Written by the driver's threads; ``problems`` is what did not fit, in words.

    A phrase is in force from the moment somebody begins to ask for it until the node has confirmed that it was
    replaced. The node is silent from the moment it has confirmed its deactivation until somebody activates it.
    """

    frames: OrderedDict[int, SentFrame] = field(default_factory=OrderedDict)
    phrases: dict[str, list[Span]] = field(default_factory=dict)
    silences: list[Span] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    checked: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def sent(self, stamp: int, frame: SentFrame) -> None:
        """A frame was published with ``stamp``, in nanoseconds."""
        with self.lock:
            self.frames[stamp] = frame
            while len(self.frames) > KEPT:
                self.frames.popitem(last=False)

    def asking(self, phrases: tuple[str, ...], at: int) -> None:
        """Somebody begins to ask for these."""
        with self.lock:
            for phrase in phrases:
                self.phrases.setdefault(phrase, []).append(Span(at))

    def over(self, phrases: tuple[str, ...], at: int) -> None:
        """The node has confirmed that they are not asked any more: the newest span of each that is open ends."""
        with self.lock:
            for phrase in phrases:
                open_spans = [span for span in self.phrases.get(phrase, []) if span.end == FOREVER]
                if open_spans:
                    open_spans[0].end = at

    def silent(self, at: int) -> None:
        """The node has confirmed that it publishes nothing."""
        with self.lock:
            self.silences.append(Span(at))

    def speaking(self, at: int) -> None:
        """The node is asked to publish again."""
        with self.lock:
            if self.silences and self.silences[-1].end == FOREVER:
                self.silences[-1].end = at

    def check_detections(self, msg: Detection2DArray, published_ns: int) -> None:
        """Hold a message of ~/detections, published then, against what was sent."""
        phrases = {result.hypothesis.class_id for found in msg.detections for result in found.results}
        frame = self._check(msg.header, phrases, published_ns, "~/detections")
        if frame is None:
            return
        for found in msg.detections:
            if found.header != msg.header:
                self._tell(f"a detection has the header {found.header}, its message {msg.header}")
            x0, y0, x1, y1 = box_from_message(found.bbox).as_tuple()
            inside = -EDGE_PX <= x0 < x1 <= frame.width + EDGE_PX and -EDGE_PX <= y0 < y1 <= frame.height + EDGE_PX
            if not inside:
                self._tell(f"the box {x0:g} {y0:g} {x1:g} {y1:g} is not in a picture of {frame.width} x {frame.height}")
            score = found.results[0].hypothesis.score
            if not 0 <= score <= 1:
                self._tell(f"the score is {score}")

    def check_candidates(self, msg: CandidateArray, published_ns: int) -> None:
        """Hold a message of ~/candidates against what was sent."""
        self._check(msg.header, {msg.phrase}, published_ns, "~/candidates")

    def _check(self, header: object, phrases: set[str], published_ns: int, topic: str) -> SentFrame | None:
        stamp = stamp_ns(header)
        frame_id: str = getattr(header, "frame_id", "")
        with self.lock:
            self.checked += 1
            frame = self.frames.get(stamp)
            strange = [p for p in phrases if not any(span.holds(published_ns) for span in self.phrases.get(p, ()))]
            silent = any(span.holds(published_ns) for span in self.silences)
        if frame is None:
            self._tell(f"{topic} answers a frame of {stamp} ns, which was never sent")
            return None
        if frame.frame_id != frame_id:
            self._tell(f"{topic} answers the frame of {stamp} ns as {frame_id!r}, it was {frame.frame_id!r}")
        if published_ns < frame.at_ns:
            self._tell(f"{topic} answered {frame_id!r} before it was sent")
        for phrase in strange:
            self._tell(f"{topic} answers {phrase!r} about {frame_id!r}, which was not asked at that time")
        if silent:
            self._tell(f"{topic} answered {frame_id!r} while the node was not active")
        return frame

    def _tell(self, problem: str) -> None:
        with self.lock:
            self.problems.append(problem)

    def take_problems(self) -> list[str]:
        """What did not fit since the last call."""
        with self.lock:
            taken, self.problems = self.problems, []
            return taken
