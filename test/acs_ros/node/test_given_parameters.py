from __future__ import annotations

from pathlib import Path

import pytest
import rclpy
from rclpy.context import Context
from rclpy.parameter import Parameter

from acs_ros.node.given_parameters import GivenParameters, check_file, check_words, is_known
from acs_ros.node.grounding_node import GroundingNode


@pytest.fixture
def write(tmp_path):
    def write(text, name="p.yaml"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


@pytest.fixture
def start(grounder):
    """Starts a node in this process with the words after ``--ros-args``, as main() does."""
    made = []

    def start(*words: str, **options) -> GroundingNode:
        arguments = ["--ros-args", *words]
        given = GivenParameters.of(arguments)
        context = Context()
        rclpy.init(args=arguments, context=context)
        made.append((context, None))
        node = GroundingNode(load=lambda settings: grounder, given=given, context=context, **options)
        made[-1] = (context, node)
        return node

    yield start
    for context, node in made:
        if node is not None:
            node.close()
            node.destroy_node()
        rclpy.shutdown(context=context)


def of_nodes(*names: str, **values) -> str:
    lines = [f"    {name}: {value}" for name, value in values.items()]
    return "".join(f"{node}:\n  ros__parameters:\n" + "\n".join(lines) + "\n" for node in names)


@pytest.mark.parametrize("node", ["/grounding", "grounding", "/**/grounding"])
def test_an_unknown_name_for_this_node_is_refused_with_the_nearest(start, write, node):
    file = write(of_nodes(node, smaples=3))
    with pytest.raises(ValueError) as caught:
        start("--params-file", file)
    said = f"there is no parameter smaples ({file}; did you mean samples?); docs/node.md lists them"
    assert str(caught.value) == said


def test_an_unknown_name_on_the_command_line_is_refused(start):
    with pytest.raises(ValueError, match=r"^there is no parameter smaples \(-p; did you mean samples\?\)"):
        start("-p", "smaples:=3")
    with pytest.raises(ValueError, match=r"^there are no parameters smaples \(.*\), colour \(-p\); docs/node.md"):
        start("-p", "grounding:smaples:=3", "--param", "colour:=3")


def test_an_unknown_name_given_in_code_is_refused(start):
    with pytest.raises(ValueError, match=r"^there is no parameter smaples \(did you mean samples\?\)"):
        start(parameter_overrides=[Parameter("smaples", value=3)])


def test_names_without_end_make_a_short_message(start):
    with pytest.raises(ValueError, match="and 30 more") as caught:
        start(parameter_overrides=[Parameter(f"{'x' * 200}{n}", value=3) for n in range(40)])
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("node", ["/**", "/*"])
def test_an_unknown_name_for_nodes_of_any_name_is_warned_of(start, write, node):
    file = write(of_nodes(node, samples=5, smaples=3, max_speed=2))
    made = start("--params-file", file)
    assert made.settings.samples == 5
    notes = GivenParameters.of(["--ros-args", "--params-file", file]).check("/grounding", ["smaples", "max_speed"])
    assert notes.misspelt.startswith(f"there is no parameter smaples ({file}; did you mean samples?)")
    assert [note.partition(" (")[0] for note in notes.ignored] == ["there is no parameter max_speed"]
    assert made.statistics.snapshot().setup_problem == notes.misspelt


def test_a_name_that_is_given_for_all_and_for_this_node_is_refused(start, write):
    with pytest.raises(ValueError, match="no parameter smaples"):
        start("--params-file", write(of_nodes("/**", "/grounding", smaples=3)))


def test_names_of_rclpy_are_known(start):
    words = ("use_sim_time:=false", "start_type_description_service:=true")
    topic = "qos_overrides./grounding/query.subscription.depth"
    node = start("-p", words[0], "-p", words[1], "-p", f"{topic}:=3", "-p", "samples:=2")
    assert node.settings.samples == 2 and node.get_parameter(topic).value == 3


def test_every_parameter_that_a_node_declares_is_known(start):
    assert [name for name in start()._parameters if not is_known(name)] == []


def test_a_file_for_another_node_keeps_the_node_from_starting(start, write):
    file = write(of_nodes("/grounder", samples=3))
    with pytest.raises(ValueError, match=r"nothing in .* is for /grounding; it names /grounder"):
        start("--params-file", file)
    assert start("--params-file", file, "-r", "__node:=grounder").settings.samples == 3
    with pytest.raises(ValueError, match=r"is for /robot/grounding; it names /grounder"):
        start("--params-file", file, "-r", "__ns:=/robot")


def test_beside_a_file_for_this_node_one_for_another_is_warned_of(start, write):
    other, own = write(of_nodes("/camera", fps=3), "other.yaml"), write(of_nodes("/grounding", samples=3))
    given = GivenParameters.of(["--ros-args", "--params-file", other, "--params-file", own])
    assert given.check("/grounding", ["samples"]).ignored == (
        f"nothing in {other} is for /grounding; it names /camera",
    )
    assert start("--params-file", other, "--params-file", own).settings.samples == 3


def test_values_that_a_launch_file_gives_are_for_this_node_and_do_not_excuse_its_file(start, write):
    """launch_ros writes them to a file of its own, for "/**" where the launch file does not name the node."""
    launched = write(of_nodes("/**", use_sim_time="false"), "launch_params_x1")
    assert start("--params-file", launched).settings.samples == 10
    with pytest.raises(ValueError, match="it names /grounder"):
        start("--params-file", write(of_nodes("/grounder", samples=3)), "--params-file", launched)
    with pytest.raises(ValueError, match=r"there is no parameter smaples \(did you mean samples\?\)"):
        start("--params-file", write(of_nodes("/**", smaples=3), "launch_params_x2"))


def test_an_assignment_for_another_node_is_refused(start):
    with pytest.raises(ValueError, match="-p grounder:samples is for /grounder, this is /grounding"):
        start("-p", "grounder:samples:=3")


def test_what_stands_outside_of_the_ros_arguments_is_not_read(tmp_path):
    words = ["-p", "a:=1", "--ros-args", "-p", "b:=1", "--", "--params-file", "none", "--ros-args", "-p", "n:c:=1"]
    assert GivenParameters.of(words).assigned == (("", "b"), ("n", "c"))


def test_a_missing_file_is_refused_before_ros_starts():
    with pytest.raises(ValueError, match=r"there is no parameter file none\.yaml"):
        GivenParameters.of(["--ros-args", "--params-file", "none.yaml"])


def test_a_file_is_checked_for_a_node_that_is_not_there_yet(write, tmp_path, repo):
    for file in (repo / "config").glob("*.yaml"):
        check_file(file, "/grounding")
    for text, said in ((of_nodes("/a", samples=1), "it names /a"), (of_nodes("/grounding", smaples=1), "did you mean")):
        with pytest.raises(ValueError, match=said):
            check_file(Path(write(text)), "/grounding")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ""),
        (["--ros-args", "-p", "samples:=3", "--params-file", "f"], ""),
        (["--ros-args", "-p", "samples:=3", "--"], ""),
        (["-p", "samples:=3"], "-p samples:=3 is not read: write --ros-args before it"),
        (["samples:=3", "--ros-args", "-r", "a:=b"], "samples:=3 is not read"),
        (["--ros-args", "-r", "a:=b", "--", "--frobnicate"], "--frobnicate is not read"),
        (["--params-file", "none.yaml"], "--params-file none.yaml is not read"),
    ],
)
def test_what_stands_outside_of_ros_args_is_named(words, said):
    if not said:
        check_words(words)
        return
    with pytest.raises(ValueError) as raised:
        check_words(words)
    assert str(raised.value).startswith(said)
