"""The launch file, with the real launch_ros where ROS is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

# Not `launch`: this repository's folder of that name would do.
pytest.importorskip("launch_ros", reason="launch and launch_ros come with a ROS installation")

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.utilities import perform_substitutions

FILE = Path(__file__).parents[2] / "launch" / "grounding.launch.py"


def load(file: Path):
    spec = importlib.util.spec_from_file_location(file.name.replace(".", "_"), file)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def module():
    return load(FILE)


def start(module, **given) -> tuple[LaunchContext, object]:
    """The node action for these launch arguments, as `ros2 launch` makes it."""
    context = LaunchContext()
    context.launch_configurations.update(given)
    description = module.generate_launch_description()
    assert isinstance(description, LaunchDescription)
    for entity in description.entities:
        if isinstance(entity, DeclareLaunchArgument):
            entity.execute(context)
    (maker,) = [e for e in description.entities if isinstance(e, OpaqueFunction)]
    (node,) = maker.execute(context)
    return context, node


def parameters(context, node) -> dict[str, object]:
    """What the arguments override, evaluated."""
    from launch_ros.utilities import evaluate_parameters

    found = {}
    for given in evaluate_parameters(context, node._Node__parameters):
        if isinstance(given, dict):
            found |= given
    return found


def test_without_arguments_only_the_flags_are_set(module):
    assert parameters(*start(module)) == {"autostart": True, "use_sim_time": False}


def test_arguments_become_typed_parameters(module):
    got = parameters(*start(module, model="m", samples="4", min_score="0.5", device="cpu", autostart="false"))
    assert got == {
        "model": "m",
        "samples": 4,
        "min_score": 0.5,
        "device": "cpu",
        "autostart": False,
        "use_sim_time": False,
    }


def test_topics_are_remapped_only_where_asked(module):
    context, node = start(module, image_topic="/cam/image", query_topic="/ask")
    pairs = node._Node__remappings
    assert {tuple(perform_substitutions(context, list(s)) for s in pair) for pair in pairs} == {
        ("~/image", "/cam/image"),
        ("~/query", "/ask"),
    }


def test_compressed_transport_and_further_rules_are_remapped_too(module):
    given = {"image_topic": "/cam", "image_transport": "compressed", "remap": "~/left/image:=/l ~/depth:=/d"}
    context, node = start(module, **given)
    pairs = {tuple(perform_substitutions(context, list(s)) for s in pair) for pair in node._Node__remappings}
    wanted = {("~/image", "/cam"), ("~/image/compressed", "/cam/compressed"), ("~/left/image", "/l"), ("~/depth", "/d")}
    assert pairs == wanted


def test_a_rule_that_is_none_is_refused(module):
    with pytest.raises(RuntimeError, match="'nonsense' is no rule like"):
        start(module, remap="nonsense")


def test_a_node_that_dies_is_started_again(module):
    from launch_ros.actions import LifecycleNode

    _, node = start(module)
    assert isinstance(node, LifecycleNode) and node._ExecuteLocal__respawn is True
    _, node = start(module, respawn="false")
    assert node._ExecuteLocal__respawn is False


def test_every_argument_says_what_it_is(module):
    names = [a.name for a in module.ARGUMENTS]
    assert len(set(names)) == len(names) and all(len(a.description) > 8 for a in module.ARGUMENTS)


def test_what_becomes_a_parameter_is_one_of_its_type(module):
    from acs_ros.parameter_table import SPECS

    known = {spec.name: type(spec.default) for spec in SPECS}
    assert {name: kind for name, (kind, _) in module.OVERRIDES.items()} == {n: known[n] for n in module.OVERRIDES}


def test_the_demo_starts_node_and_player_and_rviz_where_wanted():
    from launch.actions import IncludeLaunchDescription
    from launch_ros.actions import Node

    demo = load(FILE.with_name("demo.launch.py")).generate_launch_description()
    (included,) = [e for e in demo.entities if isinstance(e, IncludeLaunchDescription)]
    inner = included.launch_description_source.get_launch_description(LaunchContext())
    assert any(isinstance(e, OpaqueFunction) for e in inner.entities)
    player, rviz = [e for e in demo.entities if isinstance(e, Node)]
    assert (player.node_executable, rviz.node_executable) == ("bag_player", "rviz2")
    assert player.condition is None and rviz.condition is not None


def test_a_wrong_flag_is_refused(module):
    with pytest.raises(RuntimeError, match="autostart"):
        start(module, autostart="maybe")
