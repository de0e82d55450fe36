"""tf2_msgs, ours or a distribution's: the message of /tf and /tf_static."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("tf2_msgs.msg")

import tf2_msgs.msg
from tf2_msgs.msg import TFMessage

# Of the real package: DDS matches publishers and subscribers by it.
HASH = "RIHS01_e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087"


def test_the_message_is_that_of_every_distribution():
    assert TFMessage.get_fields_and_field_types() == {"transforms": "sequence<geometry_msgs/TransformStamped>"}
    # .../PREFIX/lib/pythonX.Y/site-packages/tf2_msgs/__init__.py
    prefix = Path(tf2_msgs.__file__).parents[4]
    generated = json.loads((prefix / "share/tf2_msgs/msg/TFMessage.json").read_text())
    hashes = {entry["type_name"]: entry["hash_string"] for entry in generated["type_hashes"]}
    assert hashes["tf2_msgs/msg/TFMessage"] == HASH


def test_ours_is_never_built_beside_a_distribution(repo):
    assert (repo / "msg" / "tf2_msgs" / "COLCON_IGNORE").exists()
