"""What leaves the node about one camera: answers as messages, and pictures only while somebody looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from acs_msgs.msg import CandidateArray
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray, Detection3DArray
from visualization_msgs.msg import MarkerArray

from acs_core.types import GroundingResult
from acs_ros.depth import DepthError, Pinhole, box_in_space, depth_in_metres
from acs_ros.frames import Frame, encode_jpeg
from acs_ros.image_conversion import fill_image
from acs_ros.ledger import Ledger
from acs_ros.messages import candidates_to_message, detection_to_message, detections_to_message
from acs_ros.parameters import Settings
from acs_ros.qos import OVERRIDABLE, reliable
from acs_ros.reporter import Reporter
from acs_ros.space_messages import Found, detections_3d, markers
from acs_ros.tracking import Track


@dataclass(frozen=True)
class Composed:
    """The messages about one frame. ``sends`` are pairs of a publisher and its message, in the order to send them."""

    detections: Detection2DArray
    candidates: tuple[CandidateArray, ...]
    detections_3d: Detection3DArray
    sends: tuple[tuple[Any, Any], ...]


class CameraOutputs:
    """The publishers of one camera, and what they are sent. ``prefix``: "~/" or "~/left/"."""

    def __init__(self, node: Node, prefix: str, settings: Settings, reporter: Reporter, ledger: Ledger) -> None:
        self._node, self._ledger = node, ledger

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
        """Take the topics away."""
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
        """Whether somebody looks at the attention."""
        return any(_heard(p) for (name, _), p in self.pictures.items() if name == "attention_image")

    def compose(
        self, frame: Frame, image: np.ndarray, results: Sequence[GroundingResult], settings: Settings
    ) -> Composed:
        """The messages about ``results``, but for pictures. About a goal's own picture only pictures are sent.

        Runs on the model's thread; places are worked out only where somebody listens, or a goal waits.
        """
        header = frame.header
        detections = Detection2DArray(header=header)
        for result in results:
            detections.detections += detections_to_message(header, result).detections
        candidates = tuple(candidates_to_message(header, result) for result in results)
        found, camera = self._place(frame, image, results, settings)
        space = detections_3d(header, found)
        sends: list[tuple[Any, Any]] = []
        if not frame.own:
            # Candidates first: who waits for the detections then has their circumstances at hand.
            sends += [(self.candidates, message) for message in candidates]
            sends.append((self.detections, detections))
            if self.detections_3d is not None:
                sends.append((self.detections_3d, space))
            if _heard(self.markers):
                sends.append((self.markers, markers(header, found, camera, settings.marker_depth)))
        return Composed(detections, candidates, space, tuple(sends))

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
    ) -> tuple[list[Found], Pinhole | None]:
        chosen = [(r.phrase, d) for r in results for d in r.detections]
        plain = [Found(phrase, d.score, d.box) for phrase, d in chosen]
        if frame.own or not (settings.use_depth or _heard(self.markers)):
            return plain, None
        try:
            if frame.info is None:
                raise DepthError("no camera info came: nothing is published on its topic")
            camera = Pinhole.of(frame.info, (image.shape[1], image.shape[0]), settings.rectified)
        except DepthError as error:
            self._note_depth(settings, str(error))
            return plain, None
        try:
            if frame.depth is None:
                raise DepthError(f"no depth image within {settings.depth_tolerance:g} s of the image's stamp")
            depth = depth_in_metres(frame.depth, settings.depth_unit)
        except DepthError as error:
            self._note_depth(settings, str(error))
            return plain, camera
        placed, problem = [], ""
        for phrase, detection in chosen:
            try:
                space = box_in_space(detection.box, depth, camera)
            except DepthError as error:
                problem, space = f"{phrase!r}: {error}", None
            placed.append(Found(phrase, detection.score, detection.box, space))
        self._note_depth(settings, problem)
        return placed, camera

    def _note_depth(self, settings: Settings, problem: str) -> None:
        if settings.use_depth:
            self._ledger.note(depth_problem=problem)

    def pictures_of(
        self, header: Header, image: np.ndarray, results: Sequence[GroundingResult], quality: int
    ) -> list[tuple[Any, Any]]:
        """Pairs of a publisher that somebody hears and its picture of ``results`` about the (H, W, 3) uint8 RGB
        ``image``."""
        sends: list[tuple[Any, Any]] = []
        for name in ("debug_image", "attention_image"):
            heard = {kind: p for (n, kind), p in self.pictures.items() if n == name and _heard(p)}
            if not heard:
                continue
            from acs_ros.pictures import attention_picture, debug_picture  # late: most nodes never draw

            picture = (debug_picture if name == "debug_image" else attention_picture)(image, results)
            if Image in heard:
                sends.append((heard[Image], fill_image(Image(header=header), picture)))
            if CompressedImage in heard:
                sends.append((heard[CompressedImage], encode_jpeg(picture, header, quality)))
        return sends


def _heard(publisher: Any) -> bool:
    return bool(publisher.get_subscription_count() > 0)
