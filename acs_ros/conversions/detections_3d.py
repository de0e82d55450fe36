"""Boxes in space as messages: Detection3DArray, and markers that RViz and Foxglove draw."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from geometry_msgs.msg import Point, Pose, PoseWithCovariance, Quaternion, Vector3
from std_msgs.msg import ColorRGBA, Header
from vision_msgs.msg import (
    BoundingBox3D,
    Detection2DArray,
    Detection3D,
    Detection3DArray,
    ObjectHypothesis,
    ObjectHypothesisWithPose,
)
from visualization_msgs.msg import Marker, MarkerArray

from acs_core.geometry import Box
from acs_ros.conversions.depth import SpaceBox
from acs_ros.conversions.pinhole import Pinhole
from acs_ros.conversions.transforms import IDENTITY, RigidTransform

BOX_COLOR = ColorRGBA(r=0.24, g=1.0, b=0.35, a=0.45)
LINE_COLOR = ColorRGBA(r=0.24, g=1.0, b=0.35, a=1.0)
TEXT_COLOR = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
LINE_WIDTH = 0.005  # of the distance
TEXT_HEIGHT = 0.04


@dataclass(frozen=True)
class PlacedDetection:
    """One detection with what is known of its place; ``space`` is None without depth."""

    phrase: str
    score: float
    box: Box
    space: SpaceBox | None = None
    id: str = ""


def detections_3d(
    header: Header, found: Sequence[PlacedDetection], to_target: RigidTransform = IDENTITY
) -> Detection3DArray:
    """Those of ``found`` that have a place, best score first, in the frame of ``header``.

    The boxes lie along the optical axes of the camera; ``to_target`` is the transform from its frame to that of
    ``header``. The pose of the hypothesis is the centre of the box.
    """
    made = Detection3DArray(header=header)
    for one in sorted(found, key=lambda f: -f.score):
        if one.space is not None:
            pose = to_target.pose(one.space.center)
            hypothesis = ObjectHypothesis(class_id=one.phrase, score=float(one.score))
            result = ObjectHypothesisWithPose(hypothesis=hypothesis, pose=PoseWithCovariance(pose=pose))
            box = BoundingBox3D(center=pose, size=_vector(one.space.size))
            made.detections.append(Detection3D(header=header, results=[result], bbox=box, id=one.id))
    return made


def set_poses(message: Detection2DArray, found: Sequence[PlacedDetection]) -> None:
    """Set ``results[].pose`` of the detections of ``message`` to the centres of ``found``, in the camera's frame, which
    is that of the message. Without a place the pose keeps its position (0, 0, 0), in which no object can be."""
    places = {(one.phrase, one.score, one.box.center): one.space for one in found if one.space is not None}
    for detection in message.detections:
        for result in detection.results:
            at = detection.bbox.center.position.x, detection.bbox.center.position.y
            space = places.get((result.hypothesis.class_id, result.hypothesis.score, at))
            if space is not None:
                result.pose.pose = _pose(space.center)


def markers(header: Header, found: Sequence[PlacedDetection], camera: Pinhole | None, distance: float) -> MarkerArray:
    """A cube and a text for each detection with a place; an outline ``distance`` metres ahead for one without, where
    the camera is known. The first marker takes away those of the frame before."""
    made = MarkerArray(markers=[Marker(header=header, ns="acs", action=Marker.DELETEALL)])
    for number, one in enumerate(found):
        if one.space is not None:
            cube = _marker(header, "acs", number, Marker.CUBE, BOX_COLOR)
            cube.pose, cube.scale = _pose(one.space.center), _vector(one.space.size)
            x, y, z = one.space.center
            at = (x, y - one.space.size[1] / 2, z)
        elif camera is not None:
            cube = _marker(header, "acs", number, Marker.LINE_STRIP, LINE_COLOR)
            cube.scale.x = LINE_WIDTH * distance
            b = one.box
            corners = (b.x1, b.y1), (b.x2, b.y1), (b.x2, b.y2), (b.x1, b.y2), (b.x1, b.y1)
            rays = [camera.ray(*corner) for corner in corners]
            if not all(map(math.isfinite, itertools.chain(*rays))):
                continue
            cube.points = [Point(x=x * distance, y=y * distance, z=distance) for x, y in rays]
            at = (cube.points[0].x, cube.points[0].y, distance)
        else:
            continue
        text = _marker(header, "acs_text", number, Marker.TEXT_VIEW_FACING, TEXT_COLOR)
        text.scale.z = TEXT_HEIGHT * at[2]
        text.pose = _pose((at[0], at[1] - text.scale.z, at[2]))
        text.text = f"{one.phrase} {one.score:.2f}"
        made.markers += [cube, text]
    return made


def _marker(header: Header, space: str, number: int, kind: int, color: ColorRGBA) -> Marker:
    return Marker(header=header, ns=space, id=number, type=kind, action=Marker.ADD, color=color)


def _pose(at: tuple[float, float, float]) -> Pose:
    return Pose(position=Point(x=at[0], y=at[1], z=at[2]), orientation=Quaternion(w=1.0))


def _vector(size: tuple[float, float, float]) -> Vector3:
    return Vector3(x=size[0], y=size[1], z=size[2])
