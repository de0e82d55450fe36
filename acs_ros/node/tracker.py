"""Tracks boxes between the model's answers: each is found again in the next frame by template matching.

The method is cheap: normalised cross-correlation of a grey patch near its last position, after the motion of the camera
has been subtracted. It follows an object that stays in view and keeps its appearance; it does not recover one that was
hidden. So the score of a track decays with the time since the model last confirmed it, and with the correlation.

An answer is about a past frame. The frames since then are kept, small and grey, and the box is followed through them.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from acs_core.geometry import Box

MAX_SIDE = 640  # pixels of the grey frames that are searched
HISTORY = 300  # frames kept: ten seconds at 30 Hz, 60 MB for the largest
MAX_STEPS = 24  # frames that an answer is followed through at most; more are skipped evenly
CONTEXT = 1.4  # the patch is this much larger than the box: what is around a small thing helps to find it again
SEARCH = 1.0  # patch sizes that a box may move from one frame to the next, besides the camera's motion
MIN_SEARCH = 12  # pixels
SCALES = (0.95, 1.0, 1.05)
MIN_LIKENESS = 0.4  # of the best match: below it the object is lost in this frame, and the box stays where it was
SAME_OBJECT = 0.2  # IoU of an answer with a track of the same phrase, at the answer's frame


@dataclass(frozen=True)
class Track:
    """One object at the newest frame. ``score`` has decayed; ``age`` in seconds since the model's answer's frame."""

    id: str
    phrase: str
    box: Box
    score: float
    age: float


@dataclass(frozen=True)
class TrackedQuery:
    """A detection of the model: what was asked, the box in pixels of the image, and the score."""

    phrase: str
    box: Box
    score: float


@dataclass(eq=False)
class _TrackState:
    id: str
    seen: TrackedQuery
    since: float  # stamp of the frame that the model answered about
    patch: np.ndarray  # grey, as the model saw it
    place: tuple[float, float, float]  # centre x, y in small pixels, and scale against the model's box
    size: tuple[float, float]  # of the model's box in small pixels
    likeness: float = 1.0
    path: dict[float, tuple[float, float, float]] = field(default_factory=dict)


class BoxTracker:
    """Tracks of one camera. Stamps are seconds; frames come in their order, answers when they are ready.

    Args:
        half_life: seconds after which the score of a track has halved.
        min_score: below it a track ends.
    """

    def __init__(self, half_life: float, min_score: float) -> None:
        self.half_life, self.min_score = half_life, min_score
        self._lock = threading.Lock()
        self._frames: deque[tuple[float, np.ndarray]] = deque(maxlen=HISTORY)
        self._scale = 1.0  # small pixels per pixel of the image
        self._tracks: list[_TrackState] = []
        self._numbers = itertools.count(1)

    def reset(self) -> None:
        """Forget frames and tracks: the time went backwards, or the camera changed."""
        with self._lock:
            self._frames.clear()
            self._tracks = []

    def take_frame(self, stamp: float, image: np.ndarray) -> list[Track]:
        """Follow all tracks into the next (H, W, 3) uint8 RGB or (H, W) grey frame; the tracks there."""
        small = self._small(image)
        with self._lock:
            if self._frames and (stamp <= self._frames[-1][0] or small.shape != self._frames[-1][1].shape):
                self._frames.clear()
                self._tracks = []
            if self._frames and self._tracks:
                motion = _camera_motion(self._frames[-1][1], small)
                for track in self._tracks:
                    _follow(track, small, motion, stamp)
            self._frames.append((stamp, small))
            return self._current(stamp)

    def take_answer(self, stamp: float, phrases: Sequence[str], seen: Sequence[TrackedQuery]) -> list[str]:
        """The model's answer to ``phrases`` about the frame of ``stamp``; the ids of ``seen``, in their order.

        A box that lies on a track of its phrase keeps its id; the other tracks of ``phrases`` end. A frame that is no
        longer kept gives ids, but no tracks.
        """
        with self._lock:
            frames = list(self._frames)
            at = next((i for i, (s, _) in enumerate(frames) if s == stamp), None)
            old = [t for t in self._tracks if t.seen.phrase in phrases]
            self._tracks = [t for t in self._tracks if t.seen.phrase not in phrases]
            ids = []
            for one in seen:
                ids.append(self._id_of(one, old, stamp))
                if at is not None:
                    track = self._start(ids[-1], one, stamp, frames[at][1])
                    if track is not None:
                        self._catch_up(track, frames[at:])
                        self._tracks.append(track)
            return ids

    def _current(self, stamp: float) -> list[Track]:
        found = []
        for track in self._tracks:
            age = max(0.0, stamp - track.since)
            score = track.seen.score * 0.5 ** (age / self.half_life) * max(0.0, min(1.0, track.likeness))
            found.append(Track(track.id, track.seen.phrase, self._box(track, track.place), score, age))
        keep = [t.score >= self.min_score for t in found]
        self._tracks = [t for t, k in zip(self._tracks, keep, strict=True) if k]
        return [t for t, k in zip(found, keep, strict=True) if k]

    def _id_of(self, seen: TrackedQuery, old: list[_TrackState], stamp: float) -> str:
        def overlap(track: _TrackState) -> float:
            return seen.box.iou(self._box(track, track.path.get(stamp, track.place)))

        best = max((t for t in old if t.seen.phrase == seen.phrase), key=overlap, default=None)
        if best is not None and overlap(best) >= SAME_OBJECT:
            old.remove(best)
            return best.id
        return str(next(self._numbers))

    def _start(self, name: str, seen: TrackedQuery, stamp: float, frame: np.ndarray) -> _TrackState | None:
        (cx, cy), s = seen.box.center, self._scale
        w, h = seen.box.width * s, seen.box.height * s
        patch = _cut(frame, cx * s, cy * s, max(6.0, w * CONTEXT), max(6.0, h * CONTEXT))
        if patch.std() < 1.0:  # nothing to know it by
            return None
        return _TrackState(name, seen, stamp, patch, (cx * s, cy * s, 1.0), (w, h))

    def _catch_up(self, track: _TrackState, frames: list[tuple[float, np.ndarray]]) -> None:
        stride = max(1, -(-len(frames) // MAX_STEPS))
        steps = [*frames[:-1:stride], frames[-1]]
        for (_, before), (stamp, after) in itertools.pairwise(steps):
            _follow(track, after, _camera_motion(before, after), stamp)

    def _box(self, track: _TrackState, place: tuple[float, float, float]) -> Box:
        x, y, scale = place
        w, h = track.size[0] * scale / 2, track.size[1] * scale / 2
        s = self._scale
        return Box((x - w) / s, (y - h) / s, (x + w) / s, (y + h) / s)

    def _small(self, image: np.ndarray) -> np.ndarray:
        self._scale = min(1.0, MAX_SIDE / max(image.shape[:2]))
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
        if self._scale == 1.0:
            return np.ascontiguousarray(grey)
        size = (round(grey.shape[1] * self._scale), round(grey.shape[0] * self._scale))
        return cv2.resize(grey, size, interpolation=cv2.INTER_AREA)


def _camera_motion(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """How the picture as a whole moved, in pixels (x, y): phase correlation of small copies."""
    factor = max(1.0, max(before.shape) / 160)
    size = (round(before.shape[1] / factor), round(before.shape[0] / factor))
    a, b = (cv2.resize(f, size, interpolation=cv2.INTER_AREA).astype(np.float32) for f in (before, after))
    (x, y), response = cv2.phaseCorrelate(a, b, cv2.createHanningWindow(size, cv2.CV_32F))
    return (x * factor, y * factor) if response > 0.1 else (0.0, 0.0)


def _follow(track: _TrackState, frame: np.ndarray, motion: tuple[float, float], stamp: float) -> None:
    """Move ``track`` to where its patch is most alike in ``frame``."""
    x, y, scale = track.place
    x, y = x + motion[0], y + motion[1]
    best: tuple[float, float, float, float] | None = None
    for step in SCALES:
        tried = min(4.0, max(0.25, scale * step))
        h, w = (max(4, round(v * tried)) for v in track.patch.shape)
        patch = cv2.resize(track.patch, (w, h), interpolation=cv2.INTER_LINEAR)
        reach_x, reach_y = (max(MIN_SEARCH, v * SEARCH / 2) for v in (w, h))
        left, top = round(x - w / 2 - reach_x), round(y - h / 2 - reach_y)
        window = _cut(frame, left + w / 2 + reach_x, top + h / 2 + reach_y, w + 2 * reach_x, h + 2 * reach_y)
        if window.shape[0] < h or window.shape[1] < w:
            continue
        likeness = cv2.matchTemplate(window, patch, cv2.TM_CCOEFF_NORMED)
        _, top_value, _, (col, row) = cv2.minMaxLoc(likeness)
        value = float(top_value) - 0.005 * (step != 1.0)  # a tie keeps the size
        if np.isfinite(value) and (best is None or value > best[0]):
            best = value, left + col + w / 2, top + row + h / 2, tried
    track.likeness = best[0] if best is not None else 0.0
    height, width = frame.shape
    if best is not None and best[0] >= MIN_LIKENESS:
        x, y, scale = best[1:]
    track.place = (min(max(x, 0.0), width), min(max(y, 0.0), height), scale)
    track.path[stamp] = track.place
    while len(track.path) > HISTORY:
        del track.path[next(iter(track.path))]


def _cut(frame: np.ndarray, x: float, y: float, width: float, height: float) -> np.ndarray:
    """The (height, width) piece of ``frame`` around (x, y); beyond its edge the edge is repeated."""
    w, h = max(1, round(width)), max(1, round(height))
    left, top = round(x - w / 2), round(y - h / 2)
    cols = np.clip(np.arange(left, left + w), 0, frame.shape[1] - 1)
    rows = np.clip(np.arange(top, top + h), 0, frame.shape[0] - 1)
    return np.ascontiguousarray(frame[rows[:, None], cols[None, :]])
