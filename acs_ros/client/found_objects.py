"""Detections of the node as Python records, made of its messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from acs_msgs.action import Ground
from geometry_msgs.msg import Pose
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, Detection2DArray, Detection3D, Detection3DArray

from acs_core.geometry import Box
from acs_ros.conversions.detections import box_from_message

Point3D = tuple[float, float, float]
Orientation = tuple[float, float, float, float]


@dataclass(frozen=True)
class FoundObject:
    """One detection.

    Attributes:
        phrase: The phrase that it was found by.
        score: In [0, 1]; ``score_kind`` of ~/candidates says what it means.
        box: In pixels of the image.
        id: Id of the track, with the parameter ``tracking``; else empty.
        position: Centre (x, y, z) in metres in ``frame_id``; None without depth, or where two detections cannot be told
            apart.
        frame_id: tf frame of ``position``: with the parameter ``target_frame`` that frame for the reply to a goal, else
            the frame of the camera; empty without a position.
        orientation: Quaternion (x, y, z, w): the axes of ``size``, which are those of the camera, in ``frame_id``; None
            without a position.
        size: Extent in metres along the axes of the camera (x right, y down, z forward), whatever ``frame_id`` is; None
            without a position, and in the detections of a stream.
    """

    phrase: str
    score: float
    box: Box
    id: str = ""
    position: Point3D | None = None
    frame_id: str = ""
    orientation: Orientation | None = None
    size: Point3D | None = None


@dataclass(frozen=True)
class FrameObjects:
    """The detections in one frame.

    Attributes:
        header: Header of the image.
        objects: The detections, in the order of the message: the best score of each phrase first. Empty if nothing was
            found.
        message: The message itself.
    """

    header: Header
    objects: tuple[FoundObject, ...]
    message: Detection2DArray

    @property
    def best(self) -> FoundObject | None:
        """The detection with the highest score; None without detections."""
        return max(self.objects, key=lambda found: found.score, default=None)

    @classmethod
    def of(cls, message: Detection2DArray) -> FrameObjects:
        """The detections of a message on ~/detections or ~/tracks."""
        return cls(message.header, objects_of(message), message)


@dataclass(frozen=True)
class GroundReply:
    """The result of a goal that succeeded.

    Attributes:
        header: Header of the image.
        objects: The detections, best score first; empty if nothing was found.
        reason: Why nothing was found, or why what was found has no place in space although the node uses depth; else
            empty.
        result: The whole result, with every sampled box in ``result.candidates``.
    """

    header: Header
    objects: tuple[FoundObject, ...]
    reason: str
    result: Ground.Result

    @property
    def best(self) -> FoundObject | None:
        """The detection with the highest score; None without detections."""
        return max(self.objects, key=lambda found: found.score, default=None)

    @classmethod
    def of(cls, result: Ground.Result) -> GroundReply:
        """The reply in the result of a goal."""
        objects = objects_of(result.detections, result.detections_3d)
        return cls(result.detections.header, objects, result.message, result)


def objects_of(message: Detection2DArray, placed: Detection3DArray | None = None) -> tuple[FoundObject, ...]:
    """The detections of a message, in its order, with their places where they have one.

    With ``placed`` these are its boxes: a 3D detection belongs to the one 2D detection of its ``class_id`` and score;
    where several have both, none of them gets a place. Without it, they are the poses of the hypotheses, in the frame
    of the message. Detections without a hypothesis are left out.
    """
    places = _unique(placed.detections) if placed is not None else {}
    counts = _counts(message.detections)
    found = []
    for detection in message.detections:
        if not detection.results:
            continue
        key = _key(detection)
        place: dict[str, Any] = {}
        if placed is None:
            pose = detection.results[0].pose.pose
            if pose.position.z > 0:  # else the node has set none: an object lies in front of the camera
                place = _place(pose, message.header.frame_id)
        elif key in places and counts[key] == 1:
            space = places[key].bbox
            place = {**_place(space.center, placed.header.frame_id), "size": _xyz(space.size)}
        found.append(
            FoundObject(phrase=key[0], score=key[1], box=box_from_message(detection.bbox), id=detection.id, **place)
        )
    return tuple(found)


def _place(pose: Pose, frame_id: str) -> dict[str, Any]:
    turn = pose.orientation
    return {
        "position": _xyz(pose.position),
        "frame_id": frame_id,
        "orientation": (float(turn.x), float(turn.y), float(turn.z), float(turn.w)),
    }


def _unique(detections: list[Detection3D]) -> Mapping[tuple[str, float], Detection3D]:
    counts = _counts(detections)
    return {_key(d): d for d in detections if d.results and counts[_key(d)] == 1}


def _counts(detections: list[Detection2D] | list[Detection3D]) -> dict[tuple[str, float], int]:
    counts: dict[tuple[str, float], int] = {}
    for detection in detections:
        if detection.results:
            counts[_key(detection)] = counts.get(_key(detection), 0) + 1
    return counts


def _key(detection: Detection2D | Detection3D) -> tuple[str, float]:
    hypothesis = detection.results[0].hypothesis
    return str(hypothesis.class_id), float(hypothesis.score)


def _xyz(at: object) -> Point3D:
    return float(at.x), float(at.y), float(at.z)  # type: ignore[attr-defined]
