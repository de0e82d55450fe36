"""The policy, the documentation and the node itself name the same topics, services and actions."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from rclpy.action import get_action_names_and_types

# What every node has, and nobody asks for by name; and what only some nodes have.
EVERY_NODE = re.compile(
    r"/(rosout|parameter_events|clock)$|_action/|/grounding/(transition_event|change_state|get_|describe_|.*param)"
)


@pytest.fixture
def full_rig(make_rig, grounder):
    """A node with every optional topic."""
    rig = make_rig(lambda settings: grounder, use_depth=True, tracking=True, bond_heartbeat_period=0.0)
    rig.activate()
    return rig


def in_graph(rig, kind: str) -> set[str]:
    names = getattr(rig.node, f"get_{kind}_names_and_types_by_node")("grounding", "/")
    return {name for name, _ in names if "/_action/" not in name}


@pytest.fixture(scope="module")
def policy(repo) -> dict[tuple[str, str], set[str]]:
    """(element, permission) -> full names."""
    found: dict[tuple[str, str], set[str]] = {}
    profiles = ET.parse(repo / "config" / "sros2" / "policy.xml").getroot().iter("profile")
    (profile,) = [p for p in profiles if p.get("node") == "grounding"]
    for group in profile:
        ((permission, allowed),) = group.attrib.items()
        assert allowed == "ALLOW"
        names = {(e.text or "").replace("~/", "/grounding/") for e in group}
        found.setdefault((group.tag, permission), set()).update(n if n.startswith("/") else f"/{n}" for n in names)
    return found


def test_the_policy_allows_exactly_what_the_node_does(full_rig, policy):
    # Instead of ~/image and ~/depth, with image_transport and depth_transport
    compressed = {"/grounding/image/compressed", "/grounding/depth/compressedDepth"}
    time = {"/clock"}  # with use_sim_time
    bond = {"/bond"}  # with bondpy and a lifecycle manager
    transforms = {"/tf", "/tf_static"}  # with target_frame
    elsewhere = compressed | time | bond | transforms | {"/parameter_events"}
    subscribed = in_graph(full_rig, "subscriber")
    assert policy["topics", "subscribe"] - elsewhere == subscribed - {"/parameter_events"}
    # rclpy shares the publisher of /rosout among nodes of one name in a process: one before this may hold it.
    assert policy["topics", "publish"] - bond == in_graph(full_rig, "publisher") | {"/rosout"}
    assert policy["services", "reply"] == in_graph(full_rig, "service")
    actions = {name for name, _ in get_action_names_and_types(full_rig.node)}
    assert policy["actions", "execute"] == actions


def test_the_documentation_lists_what_the_node_has_with_its_types(full_rig, repo):
    text = (repo / "docs" / "node.md").read_text()
    rows = re.findall(r"^\| `([~/][^`]*)` \| (in|out|service|action)[^|]* \| `([^`]*)` \|", text, re.MULTILINE)
    listed = {(kind, name.replace("~/", "/grounding/"), type_) for name, kind, type_ in rows}
    for base in ("image/compressed", "depth/compressedDepth"):
        listed.discard(("in", f"/grounding/{base}", "sensor_msgs/msg/CompressedImage"))
    listed -= {("in", name, "tf2_msgs/msg/TFMessage") for name in ("/tf", "/tf_static")}
    there = set()
    for kind, method in (("in", "subscriber"), ("out", "publisher"), ("service", "service")):
        for name, types in getattr(full_rig.node, f"get_{method}_names_and_types_by_node")("grounding", "/"):
            if not EVERY_NODE.search(name):
                there |= {(kind, name, type_) for type_ in types}
    there |= {("action", name, type_) for name, types in get_action_names_and_types(full_rig.node) for type_ in types}
    assert listed == there
