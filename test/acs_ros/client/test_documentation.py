"""The programs of docs/client.md, run as they stand there."""

from __future__ import annotations

import contextlib
import inspect
import re
import threading

import numpy as np
import PIL.Image
import pytest
import rclpy
from rclpy.executors import ExternalShutdownException
from std_msgs.msg import String

from acs_ros.client import GroundingClient
from acs_ros.client.goal_message import make_goal

MARK = "<!-- run by test/acs_ros/client/test_documentation.py -->\n```python\n"


@pytest.fixture
def programs(repo, rig, monkeypatch, tmp_path):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(rig.domain))
    monkeypatch.chdir(tmp_path)
    text = (repo / "docs" / "client.md").read_text()
    found = [part.partition("```")[0] for part in text.split(MARK)[1:]]
    assert len(found) == text.count("```python"), "every program is run"
    return found


def test_one_phrase_in_a_picture(programs, grounder, tmp_path, capsys):
    (tmp_path / "docs").mkdir()
    PIL.Image.fromarray(np.full((30, 40, 3), 90, np.uint8)).save(tmp_path / "docs" / "sample.png")
    exec(programs[0], {})
    assert capsys.readouterr().out == "0.75 at (2.5, 3.5)\n"
    grounder.reason = "it is not there"
    exec(programs[0], {})
    assert capsys.readouterr().out == "it is not there\n"


def test_standing_queries_and_the_detections_of_each_frame(programs, rig, image, capsys):
    streaming = rig.peer.create_timer(0.02, lambda: rig.images.publish(image()))
    exec(programs[1], {})
    streaming.cancel()
    assert capsys.readouterr().out.splitlines() == [
        "key 0.75 (1.0, 2.0, 4.0, 5.0)",
        "cup 0.75 (1.0, 2.0, 4.0, 5.0)",
    ]
    assert rig.node.query_manager.queries == ("key", "cup") and rig.node.query_manager.held


def test_a_node_of_the_users_own(programs, rig, image, grounder, until):
    program: dict = {}
    exec(programs[2], program)
    ended = []

    def run():
        with contextlib.suppress(ExternalShutdownException):
            program["main"]()
        ended.append(True)

    found = []
    rig.peer.create_subscription(String, "found", found.append, 1)
    ask = rig.peer.create_publisher(String, "fetch", 1)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        until(lambda: ask.get_subscription_count() == 1 == rig.peer.count_publishers("/found"), "the user's node")
        streaming = rig.peer.create_timer(0.02, lambda: rig.images.publish(image()))
        # The node may not have discovered it yet, and its first goal or answer may be lost.
        asking = rig.peer.create_timer(1.0, lambda: ask.publish(String(data="key")))
        until(lambda: found, "the place")
        streaming.cancel()
        asking.cancel()
    finally:
        rclpy.try_shutdown()
        thread.join(10)
    assert ended and found[0].data == "(2.5, 3.5)"
    assert grounder.calls[0][2]["min_score"] == 0.3


def test_the_page_names_every_method_and_option(repo):
    text = (repo / "docs" / "client.md").read_text()
    methods = {name for name, _ in inspect.getmembers(GroundingClient, inspect.isfunction) if not name.startswith("_")}
    named = set(re.findall(r"`(\w+)\(", text))
    assert methods - {"set_queries_async"} <= named
    assert "set_queries_async" in (GroundingClient.__doc__ or "")
    for option in set(inspect.signature(make_goal).parameters) - {"phrase", "image"}:
        assert f"`{option}`" in text, option
