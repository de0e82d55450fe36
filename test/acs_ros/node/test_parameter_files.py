from __future__ import annotations

import pytest
import rclpy
from rclpy.context import Context
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node

from acs_ros.node.parameter_files import LIMITS, ParameterFile, ParameterSection


@pytest.fixture
def write(tmp_path):
    def write(text, name="p.yaml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def given_by_rclpy(file, node_name, namespace=""):
    """What a node of rclpy gets from ``file``."""
    context = Context()
    rclpy.init(args=["--ros-args", "--params-file", str(file)], context=context)
    node = Node(node_name, namespace=namespace, context=context)
    try:
        return {name: parameter.value for name, parameter in node._parameter_overrides.items()}
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


def rclpy_cannot_read(file):
    """Jazzy's rcl refuses a node below ``/**``; Kilted's reads it."""
    context = Context()
    try:
        rclpy.init(args=["--ros-args", "--params-file", str(file)], context=context)
    except rclpy_implementation.RCLError:
        return True
    rclpy.shutdown(context=context)
    return False


NODE_BELOW_STARS = """  grounding:
    ros__parameters: {below: 3}
"""
SHARED = f"""
/**:
  ros__parameters: {{samples: 1, a: {{b: 2, c: {{d: [1, 2]}}}}}}
{NODE_BELOW_STARS}"""
SHARED += """\
/*:
  ros__parameters: {samples: 4, one: 5}
robot:
  grounding:
    ros__parameters: {nested: 6}
/robot/*:
  ros__parameters: {any: 7}
grounding:
  ros__parameters: {samples: 8, plain: 9, dotted.name: true}
/*/grounding:
  ros__parameters: {star: 10}
"""


@pytest.mark.parametrize(
    ("name", "namespace"), [("grounding", ""), ("grounding", "/robot"), ("grounding", "/a/b"), ("other", "/robot")]
)
def test_a_node_is_given_what_rclpy_gives_it(write, name, namespace):
    file = write(SHARED)
    if rclpy_cannot_read(file):
        file = write(SHARED.replace(NODE_BELOW_STARS, ""))
    found = ParameterFile.read(file).values_for(f"{namespace}/{name}")
    assert found and found == given_by_rclpy(file, name, namespace)


def test_later_documents_and_sections_replace_earlier_ones_as_in_rclpy(write):
    file = write(
        "/grounding:\n  ros__parameters:\n    x: 1\n    y: 1\n/**:\n  ros__parameters:\n    x: 2\n"
        "---\n/grounding:\n  ros__parameters:\n    y: 3\n"
    )
    assert ParameterFile.read(file).values_for("/grounding") == given_by_rclpy(file, "grounding") == {"x": 2, "y": 3}


@pytest.mark.parametrize(
    ("node", "shared"), [("/**", True), ("/robot/*", True), ("/**/grounding", False), ("/a", False)]
)
def test_a_section_is_shared_where_several_names_fit(node, shared):
    assert ParameterSection(node, {}).is_shared is shared


def test_a_file_for_another_node_names_it_the_nearest_first(write):
    file = write("/camera: {ros__parameters: {a: 1}}\n/grounder: {ros__parameters: {a: 1}}\n")
    said = f"nothing in {file} is for /grounding; it names /grounder, /camera"
    assert ParameterFile.read(file).problem_for("/grounding") == said
    assert ParameterFile.read(file).problem_for("/grounder") == ""
    assert given_by_rclpy(file, "grounding") == {}


def test_a_file_for_the_same_name_in_another_namespace_is_for_another_node(write):
    file = write("/grounding: {ros__parameters: {samples: 1}}\n")
    assert "it names /grounding" in ParameterFile.read(file).problem_for("/robot/grounding")
    assert given_by_rclpy(file, "grounding", "/robot") == {}


def test_an_empty_file_names_no_node(write):
    assert ParameterFile.read(write("# nothing\n")).problem_for("/grounding").endswith("it names no node")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "while parsing a flow node"),
        ("samples: 3\n", "'samples' is neither the name of a node with ros__parameters nor a namespace"),
        ("- 1\n", "is neither the name of a node"),
        ("/**:\n  ros__parameters:\n    b: &y 1\n    c: *y\n", r"line 4 has an alias \(\*y\)"),
        ("/**:\n  ros__parameters: 3\n", "ros__parameters of '/\\*\\*' must hold names with values"),
        ("a: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        ("{a: " * 30 + "1" + "}" * 30, "in one another"),
        ("# " + "x" * LIMITS.max_bytes, "larger than"),
        ("[" + "1," * LIMITS.max_values + "]", "more than 20,000 values"),
        ("a: 2020-99-99\n", "is no parameter file"),
    ],
)
def test_what_is_no_parameter_file_is_told_in_one_line(write, text, said):
    with pytest.raises(ValueError, match=said) as caught:
        ParameterFile.read(write(text))
    assert str(caught.value).count("\n") == 0 and "p.yaml is no parameter file" in str(caught.value)


def test_bytes_that_are_no_text_and_a_folder_are_refused(tmp_path):
    (tmp_path / "p.yaml").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "p.yaml", tmp_path):
        with pytest.raises(ValueError, match="is no parameter file"):
            ParameterFile.read(path)
    with pytest.raises(ValueError, match="there is no parameter file"):
        ParameterFile.read(tmp_path / "none.yaml")
