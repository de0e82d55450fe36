"""The launch file, with the real launch_ros where ROS is installed."""

from __future__ import annotations

import importlib.util
import sys
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


def test_further_rules_are_remapped_too(module):
    given = {"image_topic": "/cam", "image_transport": "compressed", "remap": "~/left/image:=/l ~/depth:=/d"}
    context, node = start(module, **given)
    pairs = {tuple(perform_substitutions(context, list(s)) for s in pair) for pair in node._Node__remappings}
    # The node itself names the topic of the compressed images after that of the raw ones.
    wanted = {("~/image", "/cam"), ("~/left/image", "/l"), ("~/depth", "/d")}
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
    from acs_ros.node.parameter_table import SPECS

    known = {spec.name: type(spec.default) for spec in SPECS}
    assert {name: kind for name, (kind, _) in module.OVERRIDES.items()} == {n: known[n] for n in module.OVERRIDES}


def test_the_demo_starts_node_and_player_and_rviz_where_wanted():
    from launch.actions import IncludeLaunchDescription
    from launch_ros.actions import Node

    demo = load(FILE.with_name("demo.launch.py")).generate_launch_description()
    (included,) = [e for e in demo.entities if isinstance(e, IncludeLaunchDescription)]
    inner = included.launch_description_source.get_launch_description(LaunchContext())
    assert any(isinstance(e, OpaqueFunction) for e in inner.entities)
    player, frame, rviz = [e for e in demo.entities if isinstance(e, Node)]
    assert (player.node_executable, rviz.node_executable) == ("bag_player", "rviz2")
    assert frame.node_executable == "static_transform_publisher", "of the fixed frame of RViz"
    assert player.condition is None and None not in (rviz.condition, frame.condition)


def test_a_wrong_flag_is_refused(module):
    with pytest.raises(RuntimeError, match="autostart"):
        start(module, autostart="maybe")


@pytest.mark.parametrize("name", ["grounding.launch.py", "demo.launch.py"])
def test_an_argument_that_does_not_exist_is_named_before_anything_starts(monkeypatch, name):
    monkeypatch.setattr("sys.argv", ["ros2", "launch", "acs_ros", name, "smaples:=3"])
    description = load(FILE.with_name(name)).generate_launch_description()
    (check,) = [e for e in description.entities if isinstance(e, OpaqueFunction)]
    before = description.entities[: description.entities.index(check)]
    assert not [e for e in before if type(e).__name__ in ("Node", "LifecycleNode", "IncludeLaunchDescription")]
    context = LaunchContext(argv=["smaples:=3"])
    for entity in before:
        entity.execute(context)
    with pytest.raises(ValueError, match=r"no launch argument smaples \(did you mean samples\?\)"):
        check.execute(context)


def test_a_parameter_file_that_is_not_there_is_refused(module):
    with pytest.raises(ValueError, match=r"params_file: there is no file none\.yaml"):
        start(module, params_file="none.yaml")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("samples", "many", "samples must be a whole number, got 'many'"),
        ("min_score", "high", "min_score must be a number, got 'high'"),
        ("use_depth", "yes", "use_depth must be true or false, got 'yes'"),
        ("respawn_delay", "soon", "respawn_delay must be a number, got 'soon'"),
    ],
)
def test_a_value_of_a_wrong_type_is_named_with_its_argument(module, name, value, said):
    with pytest.raises(ValueError, match=said):
        start(module, **{name: value})


@pytest.mark.parametrize(("code", "ends"), [(1, True), (2, True), (0, False), (130, False), (-2, False)])
def test_the_demo_ends_when_its_bag_cannot_be_played(code, ends):
    """The node waited for images for ever; Ctrl-C ends both without it."""
    from types import SimpleNamespace

    demo = load(FILE.with_name("demo.launch.py"))
    assert bool(demo.stop_without_player(SimpleNamespace(returncode=code))) == ends


@pytest.mark.parametrize("delay", ["0.0", "3.0"])
def test_a_node_is_never_started_again_before_its_end_was_looked_at(module, delay):
    _, node = start(module, respawn_delay=delay)
    assert node._ExecuteLocal__respawn_delay == max(float(delay), module.SHORTEST_DELAY_S) > 0


@pytest.mark.processes
@pytest.mark.parametrize(("codes", "starts"), [((2,), 1), ((1, -9, 2, 0), 3)])
def test_a_process_is_started_again_until_its_set_up_is_wrong(module, tmp_path, codes, starts):
    """With the launch service: it would go on for ever if exit code 2 did not end it."""
    from launch import LaunchService
    from launch.actions import ExecuteProcess

    script = (
        f"import os, pathlib; file = pathlib.Path({str(tmp_path / 'starts')!r}); file.open('a').write('x')\n"
        f"code = {codes}[len(file.read_text()) - 1]\n"
        "os._exit(code) if code >= 0 else os.kill(os.getpid(), -code)"
    )
    process = ExecuteProcess(
        cmd=[sys.executable, "-c", script],
        respawn=True,
        respawn_delay=module.SHORTEST_DELAY_S,
        on_exit=lambda event, context: module.give_up(event),
    )
    service = LaunchService(noninteractive=True)
    service.include_launch_description(LaunchDescription([process]))
    service.run()
    assert len((tmp_path / "starts").read_text()) == starts
