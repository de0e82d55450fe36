"""Records of the detections: which place belongs to which object, in which frame."""

from __future__ import annotations

import pytest
from acs_msgs.action import Ground
from std_msgs.msg import Header
from vision_msgs.msg import Detection3DArray

from acs_core.geometry import Box
from acs_ros.client.found_objects import FrameObjects, GroundReply, objects_of
from acs_ros.conversions.depth import SpaceBox
from acs_ros.conversions.detections import detection_to_message
from acs_ros.conversions.detections_3d import PlacedDetection, detections_3d, set_poses
from acs_ros.conversions.transforms import RigidTransform

BOX = Box(0, 0, 2, 2)
OPTICAL = (-0.5, 0.5, -0.5, 0.5)  # of a camera that looks along x of the map
SIZE = (0.06, 0.30, 0.02)  # a bottle: 6 cm wide, 30 cm high, 2 cm deep


def mug(x: float = 0.0, z: float = 2.0) -> PlacedDetection:
    return PlacedDetection("mug", 0.9, BOX, SpaceBox((x, 0.0, z), SIZE, 1.0))


def reply_of(found: PlacedDetection, target: str = "map") -> Ground.Result:
    """The result of a goal, made by the functions of the node."""
    result = Ground.Result()
    result.detections.header = Header(frame_id="camera_optical")
    result.detections.detections = [detection_to_message(result.detections.header, "mug", BOX, 0.9)]
    set_poses(result.detections, [found])
    result.detections_3d = detections_3d(Header(frame_id=target), [found], RigidTransform((5.0, 0.0, 1.0), OPTICAL))
    return result


def test_a_place_names_its_frame_and_the_axes_of_its_size():
    found = GroundReply.of(reply_of(mug())).best
    assert found.frame_id == "map", "not that of the image"
    assert found.position == pytest.approx((7.0, 0.0, 1.0))
    assert found.orientation == pytest.approx(OPTICAL), "of the axes along which the size is given"
    assert found.size == SIZE


def test_the_detections_of_a_frame_have_the_places_of_their_message():
    found = FrameObjects.of(reply_of(mug(x=0.25)).detections).best
    assert (found.position, found.frame_id) == ((0.25, 0.0, 2.0), "camera_optical")
    assert found.orientation == (0.0, 0.0, 0.0, 1.0) and found.size is None


@pytest.mark.parametrize("found", [PlacedDetection("mug", 0.9, BOX), mug(z=-1.0), mug(z=float("nan"))])
def test_a_detection_without_a_place_in_front_of_the_camera_has_none(found):
    result = reply_of(mug())
    result.detections.detections[0].results[0].pose.pose.position.z = found.space.center[2] if found.space else 0.0
    read = FrameObjects.of(result.detections).best
    assert (read.position, read.frame_id, read.orientation, read.size) == (None, "", None, None)


def test_objects_have_the_places_that_are_theirs_alone():
    result, places = Ground.Result(), []
    for phrase, score in (("key", 0.9), ("key", 0.5), ("mug", 0.7), ("mug", 0.7), ("cup", 0.1)):
        result.detections.detections.append(detection_to_message(Header(), phrase, BOX, score))
    for phrase, score, x in (("key", 0.9, 1.0), ("mug", 0.7, 2.0), ("mug", 0.7, 3.0), ("cup", 0.1, 4.0)):
        places.append(PlacedDetection(phrase, score, BOX, SpaceBox((x, 0.0, 1.0), SIZE, 1.0)))
    result.detections_3d = detections_3d(Header(), places)
    result.detections.detections[1].results.clear()  # anybody may publish there
    found = objects_of(result.detections, result.detections_3d)
    assert [(f.phrase, f.position) for f in found] == [
        ("key", (1.0, 0.0, 1.0)),
        ("mug", None),
        ("mug", None),
        ("cup", (4.0, 0.0, 1.0)),
    ]
    assert found[0].size == SIZE
    assert all(f.position is None for f in objects_of(result.detections, Detection3DArray()))
