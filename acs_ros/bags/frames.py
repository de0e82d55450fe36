"""Frames of a bag by their headers and times of recording: which are told apart by stamp, and when each is due.

Stamps serve to tell frames apart where each is there once. Drivers that set none (all 0), a clock that stands still, or
a topic that was recorded twice repeat them; such frames get a stamp of their own, the time of recording.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from acs_core.plain_text import join_some
from acs_ros.conversions.images import NS

Key = tuple[int, str]  # stamp in nanoseconds, frame_id
LATEST_NS = (2**31 - 10**6) * NS  # stamps of ROS end with 2**31 seconds
PERIOD_NS = 100_000_000  # of frames whose times nothing tells
LONG_NS = 60 * NS  # a longer interval between two frames is checked against their other times


@dataclass(frozen=True)
class FrameAt:
    """A frame: the ``number``-th message of its topic, from 0, recorded at ``time_ns``, with the header's stamp.
    ``own_stamp_ns`` is a stamp for this frame alone, where other frames have that of its header."""

    number: int
    time_ns: int
    stamp_ns: int
    frame_id: str
    own_stamp_ns: int | None = None

    @property
    def stamp(self) -> str:
        """Like "1700000000.000000005": seconds, and nine digits of nanoseconds."""
        return show_stamp(self.stamp_ns)

    @property
    def key(self) -> Key:
        """Key by which answers and labels are matched, of this frame alone: stamp in nanoseconds and frame_id."""
        return self.stamp_ns if self.own_stamp_ns is None else self.own_stamp_ns, self.frame_id


def show_stamp(ns: int) -> str:
    """A stamp of nanoseconds as seconds and nine digits."""
    return f"{ns // NS}.{ns % NS:09d}"


def peek_header(data: bytes) -> Key:
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


def with_stamp(data: bytes, ns: int) -> bytes:
    """A serialized message that begins with a std_msgs/Header, with another stamp (nanoseconds)."""
    return data[:4] + struct.pack("<iI" if data[1] else ">iI", *divmod(ns, NS)) + data[12:]


def with_own_stamps(frames: Sequence[FrameAt], taken: Collection[Key] = ()) -> tuple[FrameAt, ...]:
    """The frames, those that repeat the stamp and frame_id of another one with a stamp of their own: the time of
    recording where there is one. Those stamps rise, and none of them is in ``taken``."""
    counts = Counter(frame.key for frame in frames)
    used = {*taken, *counts}
    made, last = [], 0
    for frame in frames:
        if counts[frame.key] > 1:
            last = max(last + 1, frame.time_ns if 0 < frame.time_ns < LATEST_NS else last + PERIOD_NS)
            while (last, frame.frame_id) in used:
                last += 1
            used.add((last, frame.frame_id))
            frame = replace(frame, own_stamp_ns=last)
        made.append(frame)
    return tuple(made)


def times_serve(frames: Sequence[FrameAt]) -> bool:
    """Whether the times of recording tell the order of the frames: none is missing (0), and none falls."""
    times = [frame.time_ns for frame in frames]
    return all(times) and times == sorted(times) and (len(times) < 2 or times[0] < times[-1])


def due_times(frames: Sequence[FrameAt], stamps_first: bool = False) -> tuple[int, ...]:
    """When each frame is due, in nanoseconds after the first one.

    The intervals are those of the times of recording, or with ``stamps_first`` those of the stamps; where these do not
    rise, the interval of the other ones; where neither rises, the usual interval of the bag (PERIOD_NS without any).
    """
    chosen = [_interval(a, b, stamps_first) for a, b in pairwise(frames)]
    known = [interval for interval in chosen if interval]
    usual = int(median(known)) if known else PERIOD_NS
    due = [0] * min(1, len(frames))
    for interval in chosen:
        due.append(due[-1] + (interval or usual))
    return tuple(due)


def _interval(before: FrameAt, frame: FrameAt, stamps_first: bool) -> int:
    """Nanoseconds between two frames; 0 where nothing tells."""
    recorded = frame.time_ns - before.time_ns if before.time_ns > 0 else 0
    stamped = frame.stamp_ns - before.stamp_ns
    first, second = (stamped, recorded) if stamps_first else (recorded, stamped)
    if first > LONG_NS and 0 < second < first:  # a clock that was set
        return second
    return first if first > 0 else max(0, second)


def odd_times(frames: Sequence[FrameAt]) -> tuple[str, ...]:
    """Sentences about stamps and times of recording that do not serve, with the numbers of the frames."""
    notes = []
    repeated = [frame for frame in frames if frame.own_stamp_ns is not None]
    if repeated:
        zero = sum(frame.stamp_ns == 0 for frame in repeated)
        which = "the stamp 0" if zero == len(repeated) else "the stamp of another frame"
        also = f" ({zero} of them 0)" if 0 < zero < len(repeated) else ""
        notes.append(
            f"{len(repeated)} of {len(frames)} frames have {which}{also}: they are told apart by the order and the "
            f"times of recording ({_numbers(repeated)})"
        )
    falling = [b for a, b in pairwise(frames) if b.stamp_ns < a.stamp_ns]
    if falling:
        notes.append(f"the stamps fall at {len(falling)} of {len(frames)} frames ({_numbers(falling)})")
    times = [frame.time_ns for frame in frames]
    late = [frames[0]] if frames and frames[0].time_ns <= 0 else []
    late += [b for a, b in pairwise(frames) if b.time_ns <= 0 or b.time_ns < a.time_ns]
    if len(times) > 1 and times[0] == times[-1] and not late:
        late = list(frames)
    if late:
        notes.append(
            f"the times of recording are missing or fall at {len(late)} of {len(frames)} frames ({_numbers(late)}): "
            "the order of the bag counts, and its pace is that of the stamps where they rise"
        )
    return tuple(notes)


def _numbers(frames: Sequence[FrameAt]) -> str:
    return f"frame{'s' if len(frames) > 1 else ''} {join_some(frame.number for frame in frames)}"
