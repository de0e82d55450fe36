"""vision_msgs, ours or a distribution's: the messages that every consumer of Detection2DArray expects."""

import json
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("vision_msgs.msg")

import rclpy
import vision_msgs.msg
from vision_msgs.msg import Detection2DArray

# Of vision_msgs 4.1.1: DDS matches publishers and subscribers by it.
DETECTION_2D_ARRAY_HASH = "RIHS01_214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968"

HEADER = "std_msgs/Header"
FIELDS = {
    "BoundingBox2D": {"center": "vision_msgs/Pose2D", "size_x": "double", "size_y": "double"},
    "BoundingBox2DArray": {"header": HEADER, "boxes": "sequence<vision_msgs/BoundingBox2D>"},
    "BoundingBox3D": {"center": "geometry_msgs/Pose", "size": "geometry_msgs/Vector3"},
    "BoundingBox3DArray": {"header": HEADER, "boxes": "sequence<vision_msgs/BoundingBox3D>"},
    "Classification": {"header": HEADER, "results": "sequence<vision_msgs/ObjectHypothesis>"},
    "Detection2D": {
        "header": HEADER,
        "results": "sequence<vision_msgs/ObjectHypothesisWithPose>",
        "bbox": "vision_msgs/BoundingBox2D",
        "id": "string",
    },
    "Detection2DArray": {"header": HEADER, "detections": "sequence<vision_msgs/Detection2D>"},
    "Detection3D": {
        "header": HEADER,
        "results": "sequence<vision_msgs/ObjectHypothesisWithPose>",
        "bbox": "vision_msgs/BoundingBox3D",
        "id": "string",
    },
    "Detection3DArray": {"header": HEADER, "detections": "sequence<vision_msgs/Detection3D>"},
    "LabelInfo": {"header": HEADER, "class_map": "sequence<vision_msgs/VisionClass>", "threshold": "float"},
    "ObjectHypothesis": {"class_id": "string", "score": "double"},
    "ObjectHypothesisWithPose": {
        "hypothesis": "vision_msgs/ObjectHypothesis",
        "pose": "geometry_msgs/PoseWithCovariance",
    },
    "Point2D": {"x": "double", "y": "double"},
    "Pose2D": {"position": "vision_msgs/Point2D", "theta": "double"},
    "VisionClass": {"class_id": "uint16", "class_name": "string"},
    "VisionInfo": {
        "header": HEADER,
        "method": "string",
        "database_location": "string",
        "database_version": "int32",
    },
}


def test_type_hash_of_the_generated_description():
    # .../PREFIX/lib/pythonX.Y/site-packages/vision_msgs/__init__.py
    prefix = Path(vision_msgs.__file__).parents[4]
    generated = json.loads((prefix / "share/vision_msgs/msg/Detection2DArray.json").read_text())
    hashes = {entry["type_name"]: entry["hash_string"] for entry in generated["type_hashes"]}
    assert hashes["vision_msgs/msg/Detection2DArray"] == DETECTION_2D_ARRAY_HASH


def test_type_hash_that_other_participants_see(domain):
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    try:
        node = rclpy.create_node("type_hash", context=context)
        node.create_publisher(Detection2DArray, "detections", 1)
        [publisher] = node.get_publishers_info_by_topic("detections")
        assert str(publisher.topic_type_hash) == DETECTION_2D_ARRAY_HASH
    finally:
        rclpy.shutdown(context=context)


@pytest.mark.parametrize("name", FIELDS)
def test_fields_in_their_order(name):
    generated = getattr(vision_msgs.msg, name).get_fields_and_field_types()
    assert list(generated.items()) == list(FIELDS[name].items())


def test_the_stand_in_has_these_messages_and_no_others(repo):
    folder = repo / "msg" / "vision_msgs"
    assert {path.stem for path in (folder / "msg").iterdir()} == set(FIELDS)
    listed = {line.strip(' "') for line in (folder / "CMakeLists.txt").read_text().splitlines() if ".msg" in line}
    assert listed == {f"msg/{name}.msg" for name in FIELDS}


def test_colcon_leaves_the_stand_in_alone(repo):
    assert (repo / "msg" / "vision_msgs" / "COLCON_IGNORE").exists()
    assert not (repo / "msg" / "acs_msgs" / "COLCON_IGNORE").exists()
