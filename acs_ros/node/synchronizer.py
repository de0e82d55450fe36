"""What belongs to a camera's frame besides its image, chosen by time stamp: depth image, camera info and transform.

Of each topic that is the message nearest to the image in time, at most ``depth_tolerance`` away. An image never waits
for the others: they are collected from the moment when the model is given the frame, and the choice is made once it has
answered. This is not the policy of message_filters' ApproximateTimeSynchronizer (in Python), which forms a set of the
first messages that fit: where depth images come after their images, it would take those of the images before.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from acs_ros.conversions.compressed_depth import decode_compressed_depth
from acs_ros.conversions.images import Frame, stamp_ns
from acs_ros.conversions.pinhole import DepthError
from acs_ros.conversions.transforms import RigidTransform, TransformError
from acs_ros.node.parameters import NodeParameters
from acs_ros.node.transform_listener import TransformListener

MISSED_PERIODS = 3  # of depth images: when the nearest is farther away, no lost message explains it
DEPTH_KEPT = 15  # depth images that wait for their picture: half a second at 30 Hz
INFO_KEPT = 60  # camera infos: two seconds at 30 Hz


def nearest(messages: Iterable[Any], stamp: int, slop: int | None = None) -> Any:
    """The message nearest to ``stamp``, at most ``slop`` away if given (nanoseconds); None if there is none."""
    found = min(messages, key=lambda msg: _apart(msg, stamp), default=None)
    return found if found is None or slop is None or _apart(found, stamp) <= slop else None


def _apart(msg: Any, stamp: int) -> int:
    return abs(stamp_ns(msg.header) - stamp)


def doubled_transport(node: Node, topic: str) -> str:
    """What to do if ``topic``, on which nobody publishes, ends with a transport twice, as when the topic of a transport
    was given as that of raw images; else empty."""
    given, _, transport = topic.rpartition("/")
    raw = given.removesuffix(f"/{transport}")
    if raw == given or not node.count_publishers(given):
        return ""
    return f"{given} is published: name the raw topic, {raw}, to which /{transport} is added"


@dataclass
class _Companions:
    """The depth image and camera info nearest to the stamp ``at`` (nanoseconds) that came until now."""

    at: int
    depth: Any
    info: Any


class FrameSynchronizer:
    """Depth images, camera infos and transforms for the frames of one camera.

    Args:
        node: The node, for the names of topics and for counts of publishers.
        depth_topic: Resolved name of the depth topic.
        info_topic: Resolved name of the camera info topic.
        parameters: The node's parameters, read anew for each frame.
        transforms: Finds transforms to the parameter ``target_frame``; None without it.
    """

    def __init__(
        self,
        node: Node,
        depth_topic: str,
        info_topic: str,
        parameters: NodeParameters,
        transforms: Callable[[], TransformListener | None],
    ) -> None:
        self._node, self._parameters, self._transforms = node, parameters, transforms
        self._depth_topic, self._info_topic = depth_topic, info_topic
        self._lock = threading.Lock()
        self._depths: deque[Image | CompressedImage] = deque(maxlen=DEPTH_KEPT)
        self._infos: deque[CameraInfo] = deque(maxlen=INFO_KEPT)
        # Of the frame that the model works on, which may take longer than what is kept of the topics lasts.
        self._expected: _Companions | None = None

    def take_depth(self, msg: Image | CompressedImage) -> None:
        """Keep a depth image."""
        with self._lock:
            self._depths.append(msg)
            expected = self._expected
            if expected is not None:
                expected.depth = nearest((expected.depth or msg, msg), expected.at)

    def take_info(self, msg: CameraInfo) -> None:
        """Keep a camera info."""
        with self._lock:
            self._infos.append(msg)
            expected = self._expected
            if expected is not None:
                expected.info = nearest((expected.info or msg, msg), expected.at)

    @property
    def counts(self) -> tuple[bool, bool]:
        """Whether a depth image and a camera info are there."""
        with self._lock:
            return bool(self._depths), bool(self._infos)

    def forget(self) -> None:
        """Drop the depth images, and all camera infos but the last; not those of a frame that the model works on."""
        with self._lock:
            self._depths.clear()
            last = list(self._infos)[-1:]
            self._infos.clear()
            self._infos.extend(last)

    def time_went_back(self) -> None:
        """Drop everything that is stamped, transforms included."""
        self.forget()
        transforms = self._transforms()
        if transforms is not None:
            transforms.clear()

    def expect(self, frame: Frame) -> Frame:
        """Collect what belongs to ``frame`` from now until :meth:`complete`, beginning with what came already.

        Returns the frame, with the transform if there is one at the very stamp of the image: it may be dropped before
        the model has answered, while a newest one within ``transform_tolerance`` may still be followed by a better one.
        """
        at = stamp_ns(frame.header)
        with self._lock:
            self._expected = _Companions(at, nearest(self._depths, at), nearest(self._infos, at))
        return frame.with_transform(*self._find_transform(frame, 0.0))

    def complete(self, frame: Frame) -> Frame:
        """The frame with what belongs to it, as far as it came by now; else with the reasons."""
        settings = self._parameters.current
        at, slop = stamp_ns(frame.header), int(settings.depth_tolerance * 1e9)
        with self._lock:
            expected, self._expected = self._expected, None
            depths, infos = list(self._depths), list(self._infos)
        found = expected if expected is not None and expected.at == at else _Companions(at, None, None)
        closest = nearest((depth for depth in (found.depth, *depths) if depth is not None), at)
        depth = closest if closest is not None and _apart(closest, at) <= slop else None
        infos = [info for info in (found.info, *infos) if info is not None]
        # A calibration that is not sent with every image holds until the next one.
        info = nearest(infos, at, slop) or (infos[-1] if infos else None)
        no_info = "" if info is not None else f"no camera info came: {self._who_sends(self._info_topic)}"
        no_depth = "" if depth is not None else self._why_no_depth(at, closest, depths)
        if isinstance(depth, CompressedImage):
            try:
                depth = decode_compressed_depth(depth, settings.max_image_pixels)
            except DepthError as error:
                depth, no_depth = None, str(error)
        frame = frame.with_companions(depth, info, no_depth, no_info)
        if frame.transform_to_target is None:
            frame = frame.with_transform(*self._find_transform(frame, settings.transform_tolerance))
        return frame

    def _find_transform(self, frame: Frame, tolerance: float) -> tuple[RigidTransform | None, str]:
        """The transform to the target frame, or why there is none; neither where no target frame is set."""
        transforms = self._transforms()
        if transforms is None:
            return None, ""
        try:
            return transforms.find(frame.header.frame_id, stamp_ns(frame.header), tolerance), ""
        except TransformError as error:
            return None, str(error)

    def _why_no_depth(self, at: int, closest: Any, depths: list[Any]) -> str:
        """Why no depth image belongs to the image stamped ``at`` nanoseconds, not even the ``closest`` one."""
        why = f"no depth image within {self._parameters.current.depth_tolerance:g} s of the image's stamp"
        if closest is None:
            return f"{why}: {self._who_sends(self._depth_topic)}"
        stamps = sorted({stamp_ns(depth.header) for depth in depths})
        apart = (stamp_ns(closest.header) - at) / 1e9
        side = "after" if apart > 0 else "before"
        remedy = "raise depth_tolerance, or fix the stamps of one driver"
        period = (stamps[-1] - stamps[0]) / 1e9 / (len(stamps) - 1) if len(stamps) > 1 else 0.0
        if 0 < MISSED_PERIODS * period < abs(apart):  # a depth image of the same moment would be nearer
            remedy = (
                f"they are {_span(period)} apart, so either the clocks of the two drivers differ (let both stamp by "
                "one clock; a larger depth_tolerance would take depth of another moment), or depth stopped coming"
            )
        return f"{why}: the nearest on {self._depth_topic} is stamped {_span(abs(apart))} {side} it; {remedy}"

    def _who_sends(self, topic: str) -> str:
        if self._node.count_publishers(topic):
            return f"a publisher is on {topic}, but nothing came from it"
        hint = doubled_transport(self._node, topic)
        return f"nobody publishes on {topic}{hint and f'; {hint}'}"


def _span(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 86400 else f"{seconds / 86400:.0f} days"
