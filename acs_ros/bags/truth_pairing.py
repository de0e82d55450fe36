"""Which ground truth message of a bag belongs to which of its frames.

A message belongs to the frame with its stamp and frame_id. Where several frames have them, or the stamps are 0, the
times and the order of recording decide; what they leave open stays without ground truth.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from acs_core.geometry import Box
from acs_core.plain_text import join_some
from acs_ros.bags.frames import FrameAt, Key, with_own_stamps

Labels = tuple[tuple[str, Box], ...]  # phrases and the boxes they name
CLEAR = 4  # a frame is the nearest one in time if the next one is this many times as far away


@dataclass(frozen=True)
class TruthAt:
    """The labels of one message, recorded at ``time_ns``; ``next_frame`` is the number of images before it in the
    bag."""

    next_frame: int
    time_ns: int
    stamp_ns: int
    frame_id: str
    labels: Labels

    @property
    def key(self) -> Key:
        """Stamp in nanoseconds and frame_id of its header."""
        return self.stamp_ns, self.frame_id

    @property
    def content(self) -> Labels:
        """The labels in an order that does not depend on the message."""
        return sorted_labels(self.labels)


def sorted_labels(labels: Labels) -> Labels:
    """The labels by phrase and box, to be compared with others."""
    return tuple(sorted(labels, key=lambda pair: (pair[0], pair[1].as_tuple())))


@dataclass(frozen=True)
class Pairing:
    """``frames`` with keys of their own; ``truth`` has the labels by the key of the frame, and labels that fit no frame
    by the key of their message. ``notes`` are sentences about what was merged or left out."""

    frames: tuple[FrameAt, ...]
    truth: dict[Key, Labels]
    notes: tuple[str, ...] = ()


def pair_truth(frames: Sequence[FrameAt], truths: Sequence[TruthAt]) -> Pairing:
    """Give each frame its ground truth.

    The same labels recorded twice for a frame count once; a frame with different ones, or one for which the order and
    times of recording leave open which are its own, gets none.
    """
    own = with_own_stamps(frames, {truth.key for truth in truths})
    found: dict[int, list[TruthAt]] = {}
    doubtful: list[TruthAt] = []
    concerned: list[int] = []
    lost: list[TruthAt] = []
    for group, messages in _groups(own, truths):
        if not group:
            lost += messages
            continue
        pairs, open_ones = _assign(group, messages)
        doubtful += open_ones
        concerned += [frame.number for frame in group] if open_ones else []
        for frame, message in pairs:
            found.setdefault(frame.number, []).append(message)
    labels: dict[Key, Labels] = {}
    twice, differing = 0, []
    for frame in own:
        messages = found.get(frame.number, [])
        if len({message.content for message in messages}) > 1:
            differing.append(frame.number)
        elif messages:
            labels[frame.key] = messages[0].labels
            twice += len(messages) - 1
    for truth in lost:
        labels.setdefault(truth.key, truth.labels)
    return Pairing(
        own, labels, tuple(_notes(own, twice, differing, len(doubtful), sorted(set(concerned) - set(found))))
    )


def _notes(
    frames: Sequence[FrameAt], twice: int, differing: Sequence[int], doubtful: int, bare: Sequence[int]
) -> Iterable[str]:
    if twice:
        yield f"{twice} ground truth messages repeat that of their frame and count once"
    if differing:
        yield (
            f"{len(differing)} of {len(frames)} frames have several ground truth messages that differ, and are left "
            f"without (frames {join_some(differing)})"
        )
    if doubtful:
        yield (
            f"{doubtful} ground truth messages are left out, and {len(bare)} of {len(frames)} frames without ground "
            f"truth ({f'frames {join_some(bare)}; ' if bare else ''}several frames have the stamp of these messages, "
            "and neither the order nor the times of recording tell whose they are)"
        )


def _groups(frames: Sequence[FrameAt], truths: Sequence[TruthAt]) -> list[tuple[list[FrameAt], list[TruthAt]]]:
    """Frames and messages that may belong together: those of one stamp and frame_id; then, of one frame_id, those that
    are left and whose stamps are 0 on one side. Messages without any frame come with an empty list."""
    of_frames: dict[Key, list[FrameAt]] = {}
    of_truths: dict[Key, list[TruthAt]] = {}
    for frame in frames:
        of_frames.setdefault((frame.stamp_ns, frame.frame_id), []).append(frame)
    for truth in truths:
        of_truths.setdefault(truth.key, []).append(truth)
    groups = [(of_frames[key], messages) for key, messages in of_truths.items() if key in of_frames]
    left_frames: dict[str, list[FrameAt]] = {}
    left_truths: dict[str, list[TruthAt]] = {}
    for frame in frames:
        if (frame.stamp_ns, frame.frame_id) not in of_truths:
            left_frames.setdefault(frame.frame_id, []).append(frame)
    for truth in truths:
        if truth.key not in of_frames:
            left_truths.setdefault(truth.frame_id, []).append(truth)
    for name, theirs in left_truths.items():
        here = left_frames.get(name, [])
        unstamped = [frame for frame in here if frame.stamp_ns == 0]
        if unstamped:
            groups.append((unstamped, theirs))
            continue
        without = [truth for truth in theirs if truth.stamp_ns == 0]
        groups += [(here, without), ([], [truth for truth in theirs if truth.stamp_ns])]
    return groups


def _assign(frames: list[FrameAt], truths: list[TruthAt]) -> tuple[list[tuple[FrameAt, TruthAt]], list[TruthAt]]:
    """Pairs of a frame and its message, and the messages for which that stays open. All have the same stamp."""
    same_stamp = {(frame.stamp_ns, frame.frame_id) for frame in frames} == {truth.key for truth in truths}
    if len(frames) == 1 and same_stamp:
        return [(frames[0], truth) for truth in truths], []
    if same_stamp and len(truths) >= len(frames) and len({truth.content for truth in truths}) == 1:
        return [(frame, truths[0]) for frame in frames], []
    nearest = _nearest(frames, truths)
    if all(frame is not None for frame in nearest):
        return [(frame, truth) for frame, truth in zip(nearest, truths, strict=True) if frame is not None], []
    if ordered := _in_turn(frames, _without_repeats(truths)):
        return ordered, []
    pairs = [(frame, truth) for frame, truth in zip(nearest, truths, strict=True) if frame is not None]
    return pairs, [truth for frame, truth in zip(nearest, truths, strict=True) if frame is None]


def _nearest(frames: Sequence[FrameAt], truths: Sequence[TruthAt]) -> list[FrameAt | None]:
    """The frame that is clearly the nearest in time to each message; None without one."""
    ordered = sorted(frames, key=lambda frame: frame.time_ns)
    times = [frame.time_ns for frame in ordered]
    found: list[FrameAt | None] = []
    for truth in truths:
        at = bisect.bisect_left(times, truth.time_ns)
        around = sorted(ordered[max(0, at - 2) : at + 2], key=lambda frame: abs(frame.time_ns - truth.time_ns))
        if len(around) < 2:
            found.append(None)
            continue
        near, far = (abs(frame.time_ns - truth.time_ns) for frame in around[:2])
        found.append(around[0] if near < far and CLEAR * near <= far else None)
    return found


def _without_repeats(truths: Sequence[TruthAt]) -> list[TruthAt]:
    """The messages without those that repeat the one before them with no image between."""
    kept: list[TruthAt] = []
    for truth in truths:
        if not (kept and kept[-1].next_frame == truth.next_frame and kept[-1].content == truth.content):
            kept.append(truth)
    return kept


def _in_turn(frames: Sequence[FrameAt], truths: Sequence[TruthAt]) -> list[tuple[FrameAt, TruthAt]]:
    """Pairs of frames and messages that were recorded in turn, as many of both; empty where they were not, or where
    the times of recording speak against it."""
    if len(frames) != len(truths):
        return []
    numbers, places = [frame.number for frame in frames], [truth.next_frame for truth in truths]
    last = len(frames) - 1
    before = all(places[i] <= numbers[i] and (i == 0 or places[i] > numbers[i - 1]) for i in range(last + 1))
    behind = all(places[i] > numbers[i] and (i == last or places[i] <= numbers[i + 1]) for i in range(last + 1))
    if not before and not behind:
        return []
    for i, (frame, truth) in enumerate(zip(frames, truths, strict=True)):
        other = i - 1 if before else i + 1
        if 0 <= other <= last and abs(frames[other].time_ns - truth.time_ns) < abs(frame.time_ns - truth.time_ns):
            return []
    return list(zip(frames, truths, strict=True))
