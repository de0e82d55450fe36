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


@pytest.fixture(scope="module")
def module():
    spec = importlib.util.spec_from_file_location("grounding_launch", FILE)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


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


def test_a_wrong_flag_is_refused(module):
    with pytest.raises(RuntimeError, match="autostart"):
        start(module, autostart="maybe")
