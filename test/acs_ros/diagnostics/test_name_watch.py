from __future__ import annotations

import gc
from types import SimpleNamespace

import pytest
import rclpy
from rclpy.context import Context
from rclpy.node import Node

from acs_ros.client.domains import domains_in_use
from acs_ros.diagnostics.name_watch import NameWatch
from acs_ros.diagnostics.statistics import NodeStatistics
from acs_ros.diagnostics.status import WARN


@pytest.fixture
def watch():
    """A watch of /robot/grounding, the nodes of its graph, and the lines that it wrote."""
    nodes, lines, statistics = [("grounding", "/robot")], [], NodeStatistics()
    logger = SimpleNamespace(warning=lines.append, info=lines.append)
    return NameWatch("/robot/grounding", lambda: nodes, statistics, logger), nodes, lines, statistics


def test_each_change_is_said_once(watch):
    name_watch, nodes, lines, statistics = watch
    for now, problem in (
        ([("grounding", "/robot"), ("grounding", "/"), ("peer", "/robot")], ""),
        ([("grounding", "/robot")] * 2, "1 more node is named /robot/grounding"),
        ([("grounding", "/robot")] * 3, "2 more nodes are named /robot/grounding"),
        ([("grounding", "/robot")], ""),
        ([], ""),
    ):
        nodes[:] = now
        for _ in range(3):
            name_watch.look()
            assert statistics.snapshot().name_problem.partition(":")[0] == problem
    assert [line.partition(":")[0] for line in lines] == [
        "1 more node is named /robot/grounding",
        "2 more nodes are named /robot/grounding",
        "no other node is named /robot/grounding any more",
    ]


def test_a_node_in_the_root_namespace_has_one_slash():
    statistics = NodeStatistics()
    logger = SimpleNamespace(warning=lambda line: None)
    NameWatch("/grounding", lambda: [("grounding", "/")] * 2, statistics, logger).look()
    assert statistics.snapshot().name_problem.startswith("1 more node is named /grounding")


def test_a_node_says_that_another_has_its_name_and_when_it_is_gone(rig, image, until):
    rig.ask("key")
    rig.images.publish(image())
    until(lambda: rig.detections, "an answer")
    context = Context()
    rclpy.init(context=context, domain_id=rig.domain)
    try:
        namesake = Node("grounding", context=context, start_parameter_services=False)
        until(lambda: rig.node.statistics.snapshot().name_problem, "the node to notice the other")
        rig.images.publish(image(stamp=2))  # an image is overdue where the machine is slow
        rig.node.statistics.set(last_abstention="")
        level, message, values = rig.status()
        assert values["name_problem"].startswith("1 more node is named /grounding")
        assert (level, message) == (WARN[0], values["name_problem"])
        namesake.destroy_node()
    finally:
        rclpy.shutdown(context=context)
    until(lambda: not rig.node.statistics.snapshot().name_problem, "the other to be gone")


def test_a_destroyed_node_leaves_a_process_that_goes_on(domain, grounder):
    """It stayed in the graph until the next garbage collection, and a later node of its name met it there."""
    from acs_ros.node.grounding_node import GroundingNode

    context = Context()
    rclpy.init(context=context, domain_id=domain)
    gc.collect()
    gc.disable()
    try:
        node = GroundingNode(load=lambda settings: grounder, context=context, parameter_overrides=[])
        assert node.trigger_configure().name == node.trigger_activate().name == "SUCCESS"
        assert domain in domains_in_use(own=True)
        node.close()
        node.destroy_node()
        rclpy.shutdown(context=context)
        assert domain not in domains_in_use(own=True)
    finally:
        gc.enable()


def test_two_grounding_nodes_notice_each_other(make_rig, grounder, until):
    from acs_ros.node.grounding_node import GroundingNode

    rig = make_rig(lambda settings: grounder)
    context = Context()
    rclpy.init(context=context, domain_id=rig.domain)
    other = GroundingNode(load=lambda settings: grounder, context=context)
    try:
        rig.executor.add_node(other)
        until(lambda: rig.node.statistics.snapshot().name_problem, "the first to notice the second")
        until(lambda: other.statistics.snapshot().name_problem, "the second to notice the first")
    finally:
        rig.executor.remove_node(other)
        other.close()
        other.destroy_node()
        rclpy.shutdown(context=context)
