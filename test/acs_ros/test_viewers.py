"""The set-ups for RViz and Foxglove: displays and panels that exist, on topics that the node publishes in a type that
they show. No screen is needed: what the viewers know is listed here, from their public sources."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import ruamel.yaml
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

from acs_ros.bags.bags import DEMO_BAG, read_bag

# Plugin classes of RViz and the message type that their topic has to have ("" for none): plugins_description.xml of
# ros2/rviz (rviz_default_plugins, rviz_common) and ros-perception/vision_msgs (vision_msgs_rviz_plugins).
DISPLAYS = {
    "rviz_default_plugins/Axes": "",
    "rviz_default_plugins/Image": "sensor_msgs/msg/Image",
    "rviz_default_plugins/MarkerArray": "visualization_msgs/msg/MarkerArray",
    "vision_msgs_rviz_plugins/Detection3DArray": "vision_msgs/msg/Detection3DArray",
}
PANELS = {"rviz_common/Displays"}
TOOLS = {"rviz_default_plugins/MoveCamera"}
VIEWS = {"rviz_default_plugins/Orbit"}
POLICIES = {
    "Reliable": ReliabilityPolicy.RELIABLE,
    "Best Effort": ReliabilityPolicy.BEST_EFFORT,
    "Volatile": DurabilityPolicy.VOLATILE,
    "Transient Local": DurabilityPolicy.TRANSIENT_LOCAL,
}
# Panels of Foxglove, and the ROS types that each shows (docs.foxglove.dev, "Supported messages"); None: any.
FOXGLOVE = {
    "Image": {"sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"},
    "3D": {"visualization_msgs/msg/MarkerArray", "visualization_msgs/msg/Marker", "sensor_msgs/msg/CameraInfo"},
    "DiagnosticSummary": {"diagnostic_msgs/msg/DiagnosticArray"},
    "RawMessages": None,
    "Publish": None,
}
RVIZ = ["grounding.rviz", "grounding_depth.rviz"]


@dataclass(frozen=True)
class Endpoint:
    """A topic of the node: its type and QoS profile."""

    type: str
    qos: Any


@pytest.fixture
def node(make_rig, grounder) -> Any:
    """An active node with every optional topic."""
    rig = make_rig(lambda settings: grounder, use_depth=True, tracking=True)
    rig.activate()
    return rig.node


@pytest.fixture
def published(node) -> dict[str, Endpoint]:
    """Topics that the node publishes, by full name."""
    found = {}
    for name, types in node.get_publisher_names_and_types_by_node("grounding", "/"):
        info = next(i for i in node.get_publishers_info_by_topic(name) if i.node_name == "grounding")
        found[name] = Endpoint(*types, info.qos_profile)
    return found


@pytest.fixture
def subscribed(node) -> dict[str, str]:
    """Types of the topics that the node subscribes to, by full name."""
    return {name: types[0] for name, types in node.get_subscriber_names_and_types_by_node("grounding", "/")}


def read_rviz(repo, name: str) -> dict[str, Any]:
    return ruamel.yaml.YAML(typ="safe").load((repo / "config" / name).read_text())


@pytest.mark.parametrize("name", RVIZ)
def test_every_class_of_rviz_exists(repo, name):
    shown = read_rviz(repo, name)
    manager = shown["Visualization Manager"]
    assert {panel["Class"] for panel in shown["Panels"]} <= PANELS
    assert {display["Class"] for display in manager["Displays"]} <= set(DISPLAYS)
    assert {tool["Class"] for tool in manager["Tools"]} <= TOOLS
    assert manager["Views"]["Current"]["Class"] in VIEWS
    plugins = {display["Class"].partition("/")[0] for display in manager["Displays"]}
    assert plugins == {"rviz_default_plugins"} | ({"vision_msgs_rviz_plugins"} if "depth" in name else set()), (
        "the first file opens without any other package"
    )


def test_every_display_gets_its_type_with_a_qos_that_fits(repo, published):
    for name in RVIZ:
        shown = set()
        for display in read_rviz(repo, name)["Visualization Manager"]["Displays"]:
            wanted = DISPLAYS[display["Class"]]
            assert ("Topic" in display) is bool(wanted) and display["Enabled"] and display["Value"], display["Name"]
            if not wanted:
                continue
            topic = display["Topic"]
            offered = published[topic["Value"]]
            assert offered.type == wanted
            requested = POLICIES[topic["Reliability Policy"]], POLICIES[topic["Durability Policy"]]
            # A subscription may ask for less than is offered, not for more.
            assert requested[0] in (offered.qos.reliability, ReliabilityPolicy.BEST_EFFORT)
            assert requested[1] in (offered.qos.durability, DurabilityPolicy.VOLATILE)
            assert topic["History Policy"] == "Keep Last" and 1 <= topic["Depth"] <= 10
            shown.add(topic["Value"])
        expected = {"/grounding/debug_image", "/grounding/attention_image", "/grounding/markers"}
        assert shown == expected | ({"/grounding/detections_3d"} if "depth" in name else set())


def panels_of(layout: Any) -> Iterator[str]:
    """Ids of the panels in the tree of a Foxglove layout."""
    if isinstance(layout, str):
        yield layout
        return
    assert layout["direction"] in ("row", "column") and 0 < layout.get("splitPercentage", 50) < 100
    yield from panels_of(layout["first"])
    yield from panels_of(layout["second"])


@pytest.fixture(scope="module")
def layout(repo) -> dict[str, Any]:
    return json.loads((repo / "config" / "foxglove_layout.json").read_text())


def test_every_panel_of_foxglove_exists_and_is_placed_once(layout):
    placed = list(panels_of(layout["layout"]))
    assert sorted(placed) == sorted(layout["configById"]) and len(set(placed)) == len(placed)
    assert {panel.partition("!")[0] for panel in placed} <= set(FOXGLOVE)


def topics_of(kind: str, config: dict[str, Any]) -> list[str]:
    """The topics that a panel subscribes to, or publishes on."""
    if kind == "Image":
        return [config["imageMode"]["imageTopic"]]
    if kind == "3D":
        return list(config["topics"])
    return [config[{"DiagnosticSummary": "topicToRender", "RawMessages": "topicPath", "Publish": "topicName"}[kind]]]


def test_every_panel_gets_a_type_that_it_shows(layout, published, subscribed):
    shown = set()
    for panel, config in layout["configById"].items():
        kind = panel.partition("!")[0]
        topics = topics_of(kind, config)
        assert topics
        if kind == "Publish":
            assert subscribed[topics[0]] == config["datatype"]
            continue
        for topic in topics:
            assert FOXGLOVE[kind] is None or published[topic].type in FOXGLOVE[kind], (panel, topic)
            assert topic in published
        shown |= set(topics)
    assert {"/grounding/debug_image/compressed", "/grounding/markers", "/grounding/detections_3d"} <= shown


def test_what_foxglove_publishes_is_a_message(layout):
    (ask,) = [c for panel, c in layout["configById"].items() if panel.startswith("Publish!")]
    package, _, name = ask["datatype"].split("/")
    message = getattr(importlib.import_module(f"{package}.msg"), name)(**json.loads(ask["value"]))
    assert message.data == "key"


def test_the_frame_is_that_of_the_shipped_bag(repo, layout):
    frames = {frame.header.frame_id for frame in read_bag(DEMO_BAG)}
    assert {read_rviz(repo, name)["Visualization Manager"]["Global Options"]["Fixed Frame"] for name in RVIZ} == frames
    assert {c["followTf"] for c in layout["configById"].values() if "followTf" in c} == frames
