from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
import yaml

from acs_ros import files
from acs_ros.dds import PROFILE_VARIABLE, apply_profile, profile_path
from acs_ros.node.parameters import SPECS

SPEC = {spec.name: spec for spec in SPECS}
CONFIGS = ["tiny_internvl.yaml", "tiny_qwen2_5_vl.yaml", "qwen2_5_vl_7b.yaml", "internvl3_5_8b.yaml"]


@pytest.mark.parametrize("name", CONFIGS)
def test_shipped_parameter_files_hold_only_good_parameters(name):
    content = yaml.safe_load(files.shipped_file(f"config/{name}").read_text())
    given = content["/**"]["ros__parameters"]
    assert given.keys() <= SPEC.keys()
    assert [problem for key, value in given.items() if (problem := SPEC[key].problem(value))] == []


def test_the_profile_is_named_unless_the_user_named_one():
    env: dict[str, str] = {}
    assert apply_profile(env) == env[PROFILE_VARIABLE] == str(profile_path())
    assert apply_profile({PROFILE_VARIABLE: "mine.xml"}) == "mine.xml"


def test_the_profile_has_room_for_a_4k_frame_of_memory():
    space = "{http://www.eprosima.com}"
    sizes = [int(e.text) for e in ET.parse(profile_path()).iter(f"{space}segment_size")]
    assert sizes and min(sizes) >= 3840 * 2160 * 3


def test_a_file_that_is_not_shipped_says_where_it_was_looked_for():
    with pytest.raises(FileNotFoundError, match=r"config/none.yaml is in none of .*install acs_ros again"):
        files.shipped_file("config/none.yaml")


@pytest.mark.parametrize("package", ["vision_msgs", "acs_msgs"])
def test_interface_sources_are_found(package):
    names = {f.stem for f in files.interface_files(package)}
    assert {"vision_msgs": "Detection2DArray", "acs_msgs": "CandidateArray"}[package] in names


def test_a_missing_interface_package_is_named():
    with pytest.raises(FileNotFoundError, match="install no_such_msgs"):
        files.interface_files("no_such_msgs")
