"""Checks of the answers that a node publishes against the frames and queries that were sent to it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from acs_msgs.msg import CandidateArray
from vision_msgs.msg import Detection2DArray

from acs_ros.conversions.detections import box_from_message
from acs_ros.conversions.images import stamp_ns

KEPT = 20_000  # number of newest frames that are kept
FOREVER = 2**63
EDGE_PX = 1e-3  # tolerance for boxes that exceed the image by rounding


@dataclass(frozen=True)
class SentFrame:
    """A published frame.

    Attributes:
        frame_id: unique among all frames.
        width: width in pixels.
        height: height in pixels.
        at_ns: system time of publishing in nanoseconds.
    """

    frame_id: str
    width: int
    height: int
    at_ns: int


@dataclass
class Interval:
    """A closed interval of system time in nanoseconds."""

    begin: int
    end: int = FOREVER

    def contains(self, at: int) -> bool:
        """Whether ``at`` lies in the interval."""
        return self.begin <= at <= self.end


@dataclass
class AnswerChecker:
    """Checks the stamp, frame_id, phrase, boxes and score of each answer; thread-safe. ``problems`` describe
    violations.

    A phrase may be answered from the moment it is sent until the node has confirmed its replacement. No answer may be
    published between the confirmation of a deactivation and the next activation.
    """

    frames: OrderedDict[int, SentFrame] = field(default_factory=OrderedDict)
    phrases: dict[str, list[Interval]] = field(default_factory=dict)
    silences: list[Interval] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    checked: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def frame_sent(self, stamp: int, frame: SentFrame) -> None:
        """Record a frame that was published with ``stamp``, in nanoseconds."""
        with self.lock:
            self.frames[stamp] = frame
            while len(self.frames) > KEPT:
                self.frames.popitem(last=False)

    def phrases_asked(self, phrases: tuple[str, ...], at: int) -> None:
        """Record that ``phrases`` are sent to the node from ``at`` on."""
        with self.lock:
            for phrase in phrases:
                self.phrases.setdefault(phrase, []).append(Interval(at))

    def phrases_replaced(self, phrases: tuple[str, ...], at: int) -> None:
        """Record that the node has confirmed the replacement of ``phrases``, which ends the open interval of each."""
        with self.lock:
            for phrase in phrases:
                open_intervals = [interval for interval in self.phrases.get(phrase, []) if interval.end == FOREVER]
                if open_intervals:
                    open_intervals[0].end = at

    def deactivated(self, at: int) -> None:
        """Record that the node has confirmed its deactivation or pause."""
        with self.lock:
            self.silences.append(Interval(at))

    def activated(self, at: int) -> None:
        """Record that the node is told to publish again."""
        with self.lock:
            if self.silences and self.silences[-1].end == FOREVER:
                self.silences[-1].end = at

    def check_detections(self, msg: Detection2DArray, published_ns: int) -> None:
        """Check a message of ~/detections; ``published_ns`` is the system time at which it was published."""
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
        """Check a message of ~/candidates; see :meth:`check_detections`."""
        self._check(msg.header, {msg.phrase}, published_ns, "~/candidates")

    def _check(self, header: object, phrases: set[str], published_ns: int, topic: str) -> SentFrame | None:
        stamp = stamp_ns(header)
        frame_id: str = getattr(header, "frame_id", "")
        with self.lock:
            self.checked += 1
            frame = self.frames.get(stamp)
            strange = [p for p in phrases if not any(i.contains(published_ns) for i in self.phrases.get(p, ()))]
            silent = any(interval.contains(published_ns) for interval in self.silences)
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
        """Return the problems found since the last call, and forget them."""
        with self.lock:
            taken, self.problems = self.problems, []
            return taken
