"""package.xml, setup.py and the installed package say the same, for pip and for colcon."""

import contextlib
import importlib.metadata
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest
from setuptools import Distribution


@pytest.fixture(scope="module")
def package(repo) -> ET.Element:
    return ET.parse(repo / "package.xml").getroot()


@pytest.fixture(scope="module")
def distribution(repo):
    """What setup.py declares, without running any of its commands."""
    from distutils.core import run_setup

    with contextlib.chdir(repo):
        return run_setup("setup.py", stop_after="init")


def test_package_xml_is_for_ament_python(package):
    assert package.get("format") == "3"
    assert package.findtext("name") == "acs_ros"
    assert package.findtext("license") == "Apache-2.0"
    assert package.findtext("export/build_type") == "ament_python"


def test_versions_agree(package, distribution, repo):
    assert distribution.get_version() == package.findtext("version")
    acs_msgs = ET.parse(repo / "msg" / "acs_msgs" / "package.xml").getroot()
    assert acs_msgs.findtext("version") == package.findtext("version")


def test_the_maintainer_is_named_once(package, distribution, repo):
    [maintainer] = package.findall("maintainer")
    metadata = distribution.metadata
    assert (metadata.maintainer, metadata.maintainer_email) == (maintainer.text, maintainer.get("email"))
    for name in ("acs_msgs", "vision_msgs"):
        [other] = ET.parse(repo / "msg" / name / "package.xml").findall("maintainer")
        assert (other.text, other.attrib) == (maintainer.text, maintainer.attrib)


def test_what_is_installed_is_this(distribution):
    assert importlib.metadata.version("acs_ros") == distribution.get_version()


def test_every_data_file_exists(distribution, repo):
    files = dict(distribution.data_files)
    missing = [source for sources in files.values() for source in sources if not (repo / source).is_file()]
    assert missing == []
    assert files["share/ament_index/resource_index/packages"] == ["resource/acs_ros"]
    assert "package.xml" in files["share/acs_ros"]
    assert "config/fastdds_profile.xml" in files["share/acs_ros/config"]


def test_the_rooms_are_packages(distribution):
    assert {name.partition(".")[0] for name in distribution.packages} == {"acs_core", "acs_ros", "training"}


def test_assets_travel_with_the_code(distribution, repo):
    builder = distribution.get_command_obj("build_py")
    builder.ensure_finalized()
    with contextlib.chdir(repo):
        shipped = {f"{entry[1]}/{name}" for entry in builder.data_files for name in entry[3]}
    assets = {
        str(path.relative_to(repo))
        for room in ("acs_core", "acs_ros", "training")
        for folder in (repo / room).rglob("assets")
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert assets <= shipped


def test_entry_points_name_modules_of_the_tree(distribution, repo):
    scripts = dict(re.split(r"\s*=\s*", entry) for entry in distribution.entry_points["console_scripts"])
    assert {"acs-ground", "acs-train", "grounding_node", "bag_player"} <= set(scripts)
    for target in scripts.values():
        module, function = target.split(":")
        source = repo / f"{module.replace('.', '/')}.py"
        assert re.search(rf"^def {function}\(", source.read_text(), re.MULTILINE), target


def test_ros2_run_finds_the_same_executables(distribution, repo, tmp_path):
    """lib/acs_ros/NAME, copied or linked, runs bin/NAME of its own prefix with all arguments."""
    sources = dict(distribution.data_files)["lib/acs_ros"]
    scripts = {entry.partition(" ")[0] for entry in distribution.entry_points["console_scripts"]}
    for link in (False, True):
        prefix = tmp_path / f"prefix with space {link}"
        (prefix / "bin").mkdir(parents=True)
        (prefix / "lib" / "acs_ros").mkdir(parents=True)
        for source in sources:
            name = source.rpartition("/")[2]
            assert name in scripts
            forwarder, script = prefix / "lib" / "acs_ros" / name, prefix / "bin" / name
            if link:
                forwarder.symlink_to(repo / source)
            else:
                forwarder.write_bytes((repo / source).read_bytes())
                forwarder.chmod((repo / source).stat().st_mode)
            script.write_text(f'#!/bin/sh\necho "{name}: $2"\n')
            script.chmod(0o755)
            done = subprocess.run([str(forwarder), "--ros-args", "a b"], capture_output=True, text=True, check=True)
            assert done.stdout == f"{name}: a b\n"


def test_dependencies_of_the_code_are_declared(package):
    declared = {element.text for element in package if element.tag in ("depend", "exec_depend")}
    messages = {"acs_msgs", "diagnostic_msgs", "sensor_msgs", "std_msgs", "vision_msgs"}
    assert {"rclpy", "launch", "launch_ros", "python3-numpy", "python3-opencv", *messages} <= declared


def test_install_requires_what_the_pins_name(distribution, repo):
    pinned = {line.partition("==")[0] for line in (repo / "requirements" / "runtime.txt").read_text().splitlines()}
    required = {re.split(r"[<>=]", requirement)[0] for requirement in distribution.install_requires}
    assert required == {name for name in pinned if not name.startswith("#") and name}


def test_an_editable_install_copies_data_files(distribution):
    assert isinstance(distribution, Distribution)
    assert distribution.has_data()


def test_the_environment_is_not_needed_to_import(repo):
    code = (
        "import rclpy, acs_core; from vision_msgs.msg import Detection2DArray; from acs_msgs.msg import CandidateArray"
    )
    pytest.importorskip("acs_msgs.msg")
    if not (repo / ".venv").exists() or not sys.prefix.startswith(str(repo)):
        pytest.skip("holds for the environment that the Makefile makes")
    done = subprocess.run([sys.executable, "-c", code], env={}, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
