"""package.xml and setup.py declare what the code imports, and nothing else."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROSDEP = {"numpy": "python3-numpy", "cv2": "python3-opencv", "PIL": "python3-pil"}
ROSDEP |= {"yaml": "python3-yaml", "tf2_ros": "tf2_ros_py", "rich": "python3-rich", "typer": "python3-typer"}
WHEELS = {"cv2": "opencv-python-headless", "PIL": "pillow", "huggingface_hub": "huggingface-hub"}
WHEELS |= {"tokenizers": "transformers", "lz4": "rosbags"}  # these bring them
UNSEEN = {"accelerate"}  # transformers uses it to load weights straight onto their device; nobody else imports it
# Imported where their output is asked for, which is left out without them; PyTorch for CUDA brings Triton.
OPTIONAL = {"pycocotools", "supervision", "triton"}
LONG_S = 120.0
OWN = {"acs_core", "acs_ros", "training"}
APART = {"bench", "stress"}  # what measures and loads the node brings extras of its own


def imports(folder: Path) -> set[str]:
    """The modules of others that the files of ``folder`` import at any place, by their top names."""
    found = set()
    for file in folder.rglob("*.py"):
        if APART & set(file.relative_to(folder).parts):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - OWN - OPTIONAL


@pytest.fixture(scope="module")
def running(repo) -> set[str]:
    """What the node, its launch file and the evaluation of bags import."""
    return imports(repo / "acs_core") | imports(repo / "acs_ros") | imports(repo / "launch")


@pytest.fixture(scope="module")
def declared(repo) -> set[str]:
    """The dependencies in package.xml."""
    return {e.text for e in ET.parse(repo / "package.xml").getroot() if e.tag in ("depend", "exec_depend")}


@pytest.fixture(scope="module")
def required(repo) -> set[str]:
    """The names in install_requires of setup.py."""
    calls = [n for n in ast.walk(ast.parse((repo / "setup.py").read_text())) if isinstance(n, ast.Call)]
    (names,) = [k.value for c in calls for k in c.keywords if k.arg == "install_requires"]
    return {re.split(r"[<>=]", name)[0] for name in ast.literal_eval(names)}


def test_every_import_is_declared(running, declared, required):
    assert {n for n in running if ROSDEP.get(n, n) not in declared and WHEELS.get(n, n) not in required} == set()


def test_everything_declared_is_imported(running, declared, required, repo):
    assert declared - {ROSDEP.get(n, n) for n in running} == set()
    assert required - UNSEEN - {WHEELS.get(n, n) for n in running | imports(repo / "training")} == set()


WITHOUT_BAGS = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"rosbags", "ruamel", "lz4", "apsw", "zstandard"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import rclpy
import acs_ros.main
import acs_ros.client.node_client, acs_ros.client.node_process
from acs_ros.node.grounding_node import GroundingNode

try:
    import rosbags
except ModuleNotFoundError:
    rclpy.init()
    node = GroundingNode(load=acs_ros.main.load_grounder)
    print("up:", node.get_fully_qualified_name())
    node.close()
    node.destroy_node()
    rclpy.shutdown()
"""


def test_the_node_starts_where_rosbags_is_not_installed(domain, monkeypatch):
    """A robot's node reads no bags: it came up only with the packages that read them."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    done = subprocess.run([sys.executable, "-c", WITHOUT_BAGS], capture_output=True, text=True, timeout=LONG_S)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "up: /grounding\n"
