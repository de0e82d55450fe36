"""Publishers of one camera: detections, candidates, markers, tracks, and pictures while they have a subscriber; and of
the standing queries."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from acs_msgs.msg import CandidateArray
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray, Detection3DArray, LabelInfo, VisionClass
from visualization_msgs.msg import MarkerArray

from acs_core.types import GroundingResult
from acs_ros.conversions.depth import DepthRange, box_in_space, check_same_view, depth_in_metres, unit_of
from acs_ros.conversions.detections import candidates_to_message, detection_to_message, detections_to_message
from acs_ros.conversions.detections_3d import PlacedDetection, detections_3d, markers, set_poses
from acs_ros.conversions.images import Frame, encode_jpeg, fill_image
from acs_ros.conversions.pinhole import DepthError, Pinhole, check_frame_id
from acs_ros.conversions.transforms import IDENTITY
from acs_ros.dds import LATCHED, OVERRIDABLE, reliable
from acs_ros.diagnostics.statistics import NodeStatistics
from acs_ros.node.parameters import Settings
from acs_ros.node.reporter import Reporter
from acs_ros.node.tracker import Track


@dataclass(frozen=True)
class ComposedMessages:
    """The messages about one frame.

    Attributes:
        sends: Pairs of a publisher and its message, in the order to send them.
        no_place: Why a detection has no place in space although the node uses depth, or "".
    """

    detections: Detection2DArray
    candidates: tuple[CandidateArray, ...]
    detections_3d: Detection3DArray
    sends: tuple[tuple[Any, Any], ...]
    no_place: str = ""


@dataclass(frozen=True)
class FrameAnswer:
    """The results about one frame and their messages.

    Attributes:
        frame: The frame, with its depth image and camera info where there are some.
        image: Its pixels, (H, W, 3) uint8 RGB.
        results: One result per phrase.
        messages: The messages made of the results, not yet published.
        began: When the model was given the frame, in seconds of the monotonic clock.
    """

    frame: Frame
    image: np.ndarray
    results: tuple[GroundingResult, ...]
    messages: ComposedMessages
    began: float


class LabelInfoPublisher:
    """Publishes the standing queries on ~/label_info, latched.

    ``class_name`` is the ``class_id`` of the detections of a query, and the message's own ``class_id`` its number among
    the standing queries, from 0.

    Args:
        node: The node.
        queries: Returns the standing queries.
        threshold: Returns the score below which no detection is published.
    """

    def __init__(self, node: Node, queries: Callable[[], tuple[str, ...]], threshold: Callable[[], float]) -> None:
        self._node, self._queries, self._threshold = node, queries, threshold
        self._lock = threading.Lock()  # the last message sent is about the last change
        self._sent: tuple[tuple[str, ...], float] | None = None
        self._publisher = node.create_publisher(LabelInfo, "~/label_info", LATCHED)

    def update(self) -> None:
        """Publish the queries and the threshold, if they changed. Any thread."""
        with self._lock:
            now = self._queries(), self._threshold()
            if now == self._sent:
                return
            self._sent = now
            message = LabelInfo(header=Header(stamp=self._node.get_clock().now().to_msg()), threshold=now[1])
            message.class_map = [VisionClass(class_id=i, class_name=name) for i, name in enumerate(now[0])]
            self._publisher.publish(message)


class CameraPublishers:
    """The publishers of one camera, and the messages for them. ``camera``: its name, "" for the only one."""

    def __init__(
        self, node: Node, camera: str, settings: Settings, reporter: Reporter, statistics: NodeStatistics
    ) -> None:
        self._node, self._statistics = node, statistics
        self._camera, prefix = camera, f"~/{camera}/" if camera else "~/"
        self._prefix = prefix

        def make(kind: Any, topic: str, qos: Any) -> Any:
            return node.create_publisher(
                kind,
                prefix + topic,
                qos,
                # Not the node's own group, with its parameter services: see Camera.listen for what rclpy may do to it.
                callback_group=MutuallyExclusiveCallbackGroup(),
                event_callbacks=reporter.output_events(prefix + topic),
                qos_overriding_options=OVERRIDABLE,
            )

        self.detections = make(Detection2DArray, "detections", reliable(10))
        self.candidates = make(CandidateArray, "candidates", reliable(10 * settings.max_queries))
        self.markers = make(MarkerArray, "markers", reliable(1))
        self.pictures = {
            (name, kind): make(kind, name + ("/compressed" if kind is CompressedImage else ""), reliable(1))
            for name in ("debug_image", "attention_image")
            for kind in (Image, CompressedImage)
        }
        self.detections_3d = make(Detection3DArray, "detections_3d", reliable(10)) if settings.use_depth else None
        self.tracks = make(Detection2DArray, "tracks", reliable(5)) if settings.tracking else None

    def destroy(self) -> None:
        """Destroy the publishers."""
        made = [
            self.detections,
            self.candidates,
            self.markers,
            *self.pictures.values(),
            self.detections_3d,
            self.tracks,
        ]
        for publisher in made:
            if publisher is not None:
                self._node.destroy_publisher(publisher)

    @property
    def attention_wanted(self) -> bool:
        """Whether an attention picture has a subscriber."""
        return any(_heard(p) for (name, _), p in self.pictures.items() if name == "attention_image")

    def places_wanted(self, settings: Settings) -> bool:
        """Whether places in space are published."""
        return settings.use_depth or _heard(self.markers)

    def compose(
        self, frame: Frame, image: np.ndarray, results: Sequence[GroundingResult], settings: Settings
    ) -> ComposedMessages:
        """The messages about ``results``, without pictures. For the image of a goal nothing is published on topics.

        Runs on the model's thread; places in space are computed only where they are published.
        """
        header = frame.header
        detections = Detection2DArray(header=header)
        for result in results:
            detections.detections += detections_to_message(header, result).detections
        candidates = tuple(candidates_to_message(header, result) for result in results)
        found, camera, why = self._place(frame, image, results, settings)
        if camera is not None:
            set_poses(detections, found)
        to_target = IDENTITY if not settings.target_frame else frame.transform_to_target
        at = Header(stamp=header.stamp, frame_id=settings.target_frame or header.frame_id)
        # Without a camera or a transform no detection has a place.
        space = Detection3DArray(header=at)
        if camera is not None and to_target is not None:
            space = detections_3d(at, found, to_target)
        sends: list[tuple[Any, Any]] = []
        if not frame.own:
            # Candidates first: a subscriber that has the detections then also has the candidates they come from.
            sends += [(self.candidates, message) for message in candidates]
            sends.append((self.detections, detections))
            if self.detections_3d is not None:
                sends.append((self.detections_3d, space))
            if _heard(self.markers):
                sends.append((self.markers, markers(header, found, camera, settings.marker_depth)))
        no_place = why if settings.use_depth and detections.detections else ""
        return ComposedMessages(detections, candidates, space, tuple(sends), no_place)

    def tracks_message(self, header: Header, tracks: Sequence[Track]) -> Detection2DArray:
        """The tracks at the frame of ``header``."""
        made = Detection2DArray(header=header)
        for track in tracks:
            one = detection_to_message(header, track.phrase, track.box, track.score)
            one.id = track.id
            made.detections.append(one)
        return made

    def _place(
        self, frame: Frame, image: np.ndarray, results: Sequence[GroundingResult], settings: Settings
    ) -> tuple[list[PlacedDetection], Pinhole | None, str]:
        """The detections with their places, the camera, and why there is no place for one of them."""
        chosen = [(r.phrase, d) for r in results for d in r.detections]
        plain = [PlacedDetection(phrase, d.score, d.box) for phrase, d in chosen]
        if frame.own or not self.places_wanted(settings):
            return plain, None, "the goal brought its own picture, which has no depth image" if frame.own else ""
        camera: Pinhole | None = None
        try:
            if frame.info is None:
                raise DepthError(frame.no_info)
            camera = self._camera_of(frame, frame.info, (image.shape[1], image.shape[0]), settings)
            depth, plausible = self._depth_of(frame, camera, settings)
        except DepthError as error:
            self._note_depth(settings, str(error))
            return plain, camera, str(error)
        placed, problem = [], ""
        for phrase, detection in chosen:
            try:
                space = box_in_space(detection.box, depth, camera, plausible)
            except DepthError as error:
                problem, space = f"{phrase!r}: {error}", None
            placed.append(PlacedDetection(phrase, detection.score, detection.box, space))
        problem = problem or frame.why_no_transform
        self._note_depth(settings, problem)
        return placed, camera, problem

    def _camera_of(self, frame: Frame, info: CameraInfo, size: tuple[int, int], settings: Settings) -> Pinhole:
        if not settings.accept_other_frames:
            topic = self._node.resolve_topic_name(self._prefix + "camera_info")
            check_frame_id(frame.header.frame_id, info.header.frame_id, f"the camera info on {topic}")
        return Pinhole.of(info, size, settings.rectified, settings.accept_scaled_images)

    def _depth_of(self, frame: Frame, camera: Pinhole, settings: Settings) -> tuple[np.ndarray, DepthRange]:
        if frame.depth is None:
            raise DepthError(frame.no_depth)
        if not settings.accept_other_frames:
            topic = self._node.resolve_topic_name(self._prefix + "depth")
            check_frame_id(frame.header.frame_id, frame.depth.header.frame_id, f"the depth image on {topic}")
        check_same_view(camera, frame.depth)
        unit = unit_of(frame.depth.encoding, settings.depth_unit)
        plausible = DepthRange(settings.min_depth, settings.max_depth, unit)
        return depth_in_metres(frame.depth, unit), plausible

    def _note_depth(self, settings: Settings, problem: str) -> None:
        if settings.use_depth:
            self._statistics.set_camera(self._camera, depth=problem)

    def pictures_of(
        self, header: Header, image: np.ndarray, results: Sequence[GroundingResult], quality: int
    ) -> list[tuple[Any, Any]]:
        """Pairs of a publisher that has a subscriber and its picture of ``results`` on the (H, W, 3) uint8 RGB
        ``image``."""
        sends: list[tuple[Any, Any]] = []
        for name in ("debug_image", "attention_image"):
            heard = {kind: p for (n, kind), p in self.pictures.items() if n == name and _heard(p)}
            if not heard:
                continue
            from acs_ros.conversions.overlays import attention_picture, debug_picture  # late: most nodes never draw

            picture = (debug_picture if name == "debug_image" else attention_picture)(image, results)
            if Image in heard:
                sends.append((heard[Image], fill_image(Image(header=header), picture)))
            if CompressedImage in heard:
                sends.append((heard[CompressedImage], encode_jpeg(picture, header, quality)))
        return sends


def _heard(publisher: Any) -> bool:
    return bool(publisher.get_subscription_count() > 0)
