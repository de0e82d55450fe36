"""Rigid transforms between frames, and a buffer of those on /tf and /tf_static for machines without tf2_ros.

A transform "from a to b" maps coordinates in the frame a to coordinates in the frame b, as ``lookup_transform(b, a,
time)`` of tf2 gives it. Quaternions are (x, y, z, w).
"""

from __future__ import annotations

import bisect
import threading
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from geometry_msgs.msg import Point, Pose, Quaternion, TransformStamped

NS = 1_000_000_000  # nanoseconds per second
KEPT_S = 30.0  # seconds of transforms that are kept: longer than tf2's 10, as a model may take that long
MAX_FRAMES = 4096  # frames; those of more are ignored
MAX_PER_FRAME = 30_000  # transforms of one frame: 30 s at 1 kHz


class TransformError(Exception):
    """There is no transform; the message says why."""


class NoTransformAt(TransformError):
    """The frames are connected, but not at this time."""


@dataclass(frozen=True)
class RigidTransform:
    """A translation in metres (x, y, z) and a rotation (x, y, z, w), which is normalised."""

    translation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rotation: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)

    @classmethod
    def of(cls, msg: TransformStamped) -> RigidTransform:
        """The transform of a message, from its child frame to its header's frame.

        Raises:
            TransformError: a value is not finite, or the rotation is no quaternion of length 1.
        """
        t, q = msg.transform.translation, msg.transform.rotation
        rotation = np.array([q.x, q.y, q.z, q.w], np.float64)
        length = float(np.linalg.norm(rotation))
        if not (np.isfinite([t.x, t.y, t.z]).all() and abs(length - 1) < 0.01):
            raise TransformError(
                f"the transform from {msg.child_frame_id[:80]!r} to {msg.header.frame_id[:80]!r} has a value that is "
                "no number, or a rotation that is no unit quaternion: fix its publisher"
            )
        x, y, z, w = (float(v) for v in rotation / length)
        return cls((t.x, t.y, t.z), (x, y, z, w))

    def apply(self, point: tuple[float, float, float]) -> tuple[float, float, float]:
        """The coordinates of ``point`` in the other frame."""
        x, y, z = (float(v) for v in _matrix(self.rotation) @ np.array(point) + np.array(self.translation))
        return x, y, z

    def after(self, first: RigidTransform) -> RigidTransform:
        """The transform that applies ``first`` and then this one."""
        (x1, y1, z1, w1), (x2, y2, z2, w2) = self.rotation, first.rotation
        product = (
            w1 * x2 + x1 * w2 + y1 * z2 - z1 * y2,
            w1 * y2 - x1 * z2 + y1 * w2 + z1 * x2,
            w1 * z2 + x1 * y2 - y1 * x2 + z1 * w2,
            w1 * w2 - x1 * x2 - y1 * y2 - z1 * z2,
        )
        return RigidTransform(self.apply(first.translation), product)

    def inverse(self) -> RigidTransform:
        """The transform in the other direction."""
        x, y, z, w = self.rotation
        back = RigidTransform((0.0, 0.0, 0.0), (-x, -y, -z, w))
        tx, ty, tz = back.apply(self.translation)
        return RigidTransform((-tx, -ty, -tz), back.rotation)

    def pose(self, point: tuple[float, float, float]) -> Pose:
        """The pose in the other frame of what lies at ``point`` along the axes of the first frame."""
        x, y, z = self.apply(point)
        qx, qy, qz, qw = self.rotation
        return Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))


IDENTITY = RigidTransform()


def _matrix(rotation: tuple[float, float, float, float]) -> np.ndarray:
    x, y, z, w = rotation
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def _between(one: RigidTransform, other: RigidTransform, share: float) -> RigidTransform:
    """The transform ``share`` of the way: linear in the translation, spherical in the rotation."""
    start, end = np.array(one.rotation), np.array(other.rotation)
    cosine = float(start @ end)
    if cosine < 0:  # the shorter way round
        end, cosine = -end, -cosine
    angle = float(np.arccos(min(1.0, cosine)))
    if angle < 1e-6:
        rotation = start + share * (end - start)
    else:
        rotation = (np.sin((1 - share) * angle) * start + np.sin(share * angle) * end) / np.sin(angle)
    qx, qy, qz, qw = (float(v) for v in rotation / np.linalg.norm(rotation))
    a, b = np.array(one.translation), np.array(other.translation)
    tx, ty, tz = (float(v) for v in a + share * (b - a))
    return RigidTransform((tx, ty, tz), (qx, qy, qz, qw))


class TransformLookup(Protocol):
    """A buffer of transforms: :class:`TransformBuffer`, or tf2's (:mod:`acs_ros.node.transform_listener`)."""

    def set_transform(self, transform: TransformStamped, authority: str) -> Any:
        """Add a transform of /tf."""

    def set_transform_static(self, transform: TransformStamped, authority: str) -> Any:
        """Add a transform of /tf_static."""

    def at(self, target: str, source: str, stamp: int) -> RigidTransform:
        """The transform from ``source`` to ``target`` at ``stamp`` nanoseconds; 0: the newest.

        Raises:
            NoTransformAt: the frames are connected, but not at this time.
            TransformError: a frame is not known, or the frames are not connected.
        """

    def newest(self, target: str, source: str) -> int:
        """The newest stamp, in nanoseconds, at which the frames are connected; 0: always."""

    def clear(self) -> None:
        """Drop the transforms of /tf; those of /tf_static stay."""


def find_transform(buffer: TransformLookup, target: str, source: str, stamp: int, tolerance: float) -> RigidTransform:
    """The transform from ``source`` to ``target`` at the ``stamp`` of an image, in nanoseconds, or the newest one if
    that is at most ``tolerance`` seconds older.

    Raises:
        TransformError: there is none; the message says why and what to do.
    """
    target, source = target.lstrip("/"), source.lstrip("/")
    if target == source:
        return IDENTITY
    if not source:
        raise TransformError(f"no transform to {target!r}: the image has no frame_id; set it in the camera driver")
    stamp = max(0, stamp)  # a stamp before 1970 is none
    try:
        return buffer.at(target, source, stamp)
    except NoTransformAt as error:
        try:
            newest = buffer.newest(target, source)
            latest = buffer.at(target, source, newest)
        except NoTransformAt:
            raise TransformError(
                f"the transforms between {source!r} and {target!r} do not overlap in time: one of them begins after "
                "another one ends; see what publishes them, and with which clocks"
            ) from error
        late = (stamp - newest) / NS
        if 0 <= late <= tolerance:
            return latest
        if late > 0:
            raise TransformError(
                f"the newest transform from {source!r} to {target!r} is stamped {late:.2f} s before the image: raise "
                "transform_tolerance, or see what publishes it, and with which clock"
            ) from error
        try:
            return buffer.at(target, source, stamp)  # it may just have come
        except NoTransformAt:
            pass
        raise TransformError(
            f"no transform from {source!r} to {target!r} is as old as the image, which is stamped {-late:.2f} s before "
            "the newest one: the image came late, or has another clock"
        ) from error


@dataclass
class _Link:
    """The transforms of one frame to its parent, ascending by stamp; one without stamp if it is static."""

    parent: str
    static: bool
    stamps: list[int] = field(default_factory=list)
    values: list[RigidTransform] = field(default_factory=list)

    def add(self, stamp: int, value: RigidTransform) -> None:
        place = bisect.bisect_left(self.stamps, stamp)
        if place < len(self.stamps) and self.stamps[place] == stamp:
            self.values[place] = value
            return
        self.stamps.insert(place, stamp)
        self.values.insert(place, value)
        old = bisect.bisect_left(self.stamps, self.stamps[-1] - int(KEPT_S * NS))
        old = max(old, len(self.stamps) - MAX_PER_FRAME)
        del self.stamps[:old], self.values[:old]

    def at(self, stamp: int) -> RigidTransform:
        if self.static:
            return self.values[-1]
        if not self.stamps[0] <= stamp <= self.stamps[-1]:
            raise NoTransformAt("not at this time")
        place = bisect.bisect_left(self.stamps, stamp)
        if self.stamps[place] == stamp:
            return self.values[place]
        before, after = self.stamps[place - 1], self.stamps[place]
        return _between(self.values[place - 1], self.values[place], (stamp - before) / (after - before))


class TransformBuffer:
    """The transforms of /tf and /tf_static of the last KEPT_S seconds. Safe to use from any thread."""

    def __init__(self) -> None:
        self._links: dict[str, _Link] = {}  # by child frame
        self._lock = threading.Lock()

    def set_transform(self, transform: TransformStamped, authority: str = "") -> None:
        """Add a transform of /tf. One that cannot be used is ignored, as tf2 ignores it."""
        self._set(transform, False)

    def set_transform_static(self, transform: TransformStamped, authority: str = "") -> None:
        """Add a transform of /tf_static, which replaces every other one of its child frame."""
        self._set(transform, True)

    def clear(self) -> None:
        """Drop the transforms of /tf; those of /tf_static stay."""
        with self._lock:
            self._links = {child: link for child, link in self._links.items() if link.static}

    def _set(self, msg: TransformStamped, static: bool) -> None:
        child, parent = msg.child_frame_id.lstrip("/"), msg.header.frame_id.lstrip("/")
        if not child or not parent or child == parent:
            return
        try:
            value = RigidTransform.of(msg)
        except TransformError:
            return
        stamp = int(msg.header.stamp.sec) * NS + int(msg.header.stamp.nanosec)
        with self._lock:
            link = self._links.get(child)
            if link is None and len(self._links) >= MAX_FRAMES:
                return
            if link is None or link.parent != parent or link.static or static:
                link = self._links[child] = _Link(parent, static)
            link.add(0 if static else stamp, value)

    def at(self, target: str, source: str, stamp: int) -> RigidTransform:
        """The transform from ``source`` to ``target`` at ``stamp`` nanoseconds; 0: the newest.

        Raises:
            NoTransformAt: the frames are connected, but not at this time.
            TransformError: a frame is not known, or the frames are not connected.
        """
        with self._lock:
            up, down = self._path(target, source)
            stamp = stamp or self._newest([*up, *down])
            to_common, from_target = IDENTITY, IDENTITY
            for link in up:
                to_common = link.at(stamp).after(to_common)
            for link in down:
                from_target = link.at(stamp).after(from_target)
        return from_target.inverse().after(to_common)

    def newest(self, target: str, source: str) -> int:
        """The newest stamp, in nanoseconds, at which the frames are connected; 0: always.

        Raises:
            TransformError: a frame is not known, or the frames are not connected.
        """
        with self._lock:
            up, down = self._path(target, source)
            return self._newest([*up, *down])

    def _newest(self, links: list[_Link]) -> int:
        return min((link.stamps[-1] for link in links if not link.static), default=0)

    def _path(self, target: str, source: str) -> tuple[list[_Link], list[_Link]]:
        """The links from ``source`` up to the frame that both descend from, and those from ``target`` up to it."""
        known = self._links.keys() | {link.parent for link in self._links.values()}
        wanted = f"no transform from {source[:80]!r} to {target[:80]!r}"
        for name in (source, target):
            if name not in known:
                raise TransformError(f"{wanted}: nothing on /tf or /tf_static names the frame {name[:80]!r}")
        above, chain = self._ancestors(source), self._ancestors(target)
        common = next((name for name in chain if name in above), None)
        if common is None:
            raise TransformError(
                f"{wanted}: the two frames are not connected; their roots are {list(above)[-1][:80]!r} and "
                f"{list(chain)[-1][:80]!r}"
            )
        return list(above.values())[: list(above).index(common)], list(chain.values())[: list(chain).index(common)]

    def _ancestors(self, name: str) -> dict[str, Any]:
        """``name`` and the frames above it, each with its link to the next; the last has None."""
        found: dict[str, Any] = {}
        while name not in found:  # a circle ends, too
            link = self._links.get(name)
            found[name] = link
            if link is None:
                break
            name = link.parent
        return found
