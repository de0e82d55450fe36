"""A disk that is full, and a folder that nobody can write: the node answers, or says what it needs."""

import subprocess
import sys

import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from std_msgs.msg import Header

from acs_ros import main
from acs_ros.client.node_client import NodeClient
from acs_ros.client.node_process import NodeProcess

LONG_S = 120.0
TINY_DISK = 'mount -t tmpfs -o size=16k tmpfs "$0" && head -c 16k /dev/zero >"$0/rubbish"'


@pytest.fixture
def full_disk(tmp_path):
    """A shell line that makes its folder $0 a full disk, in a namespace of its own."""
    folder = tmp_path / "logs"
    folder.mkdir()
    in_own_namespace = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    try:
        tried = subprocess.run([*in_own_namespace, TINY_DISK, str(folder)], capture_output=True, timeout=LONG_S)
    except FileNotFoundError:
        pytest.skip("needs unshare")
    if b"denied" in tried.stderr or b"not permitted" in tried.stderr:
        pytest.skip("this machine allows no mounts in a namespace")
    return in_own_namespace, folder


@pytest.mark.processes
def test_a_node_whose_log_disk_is_full_answers_on(full_disk, domain, tmp_path, monkeypatch):
    in_own_namespace, folder = full_disk
    script = tmp_path / "python"
    script.write_text(
        f"#!/bin/sh\nexec {' '.join(in_own_namespace)} "
        f'\'{TINY_DISK}; export ROS_LOG_DIR="$0"; exec {sys.executable} "$@"\' {folder} "$@"\n'
    )
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    args = ["-p", "autostart:=false", "-p", "diagnostics_period:=0.2"]
    node = NodeProcess(args, tmp_path / "log", {"ROS_DOMAIN_ID": str(domain)}, module="acs_ros.stress.instant_node")
    with node, NodeClient("/grounding", domain) as client:
        client.wait_for_services(LONG_S)
        for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            client.change_state(transition, LONG_S)
        client.wait_for_topics(LONG_S)
        client.ask_for("key", LONG_S)
        for stamp in range(1, 20):
            header = Header(frame_id="camera")
            header.stamp.sec = stamp  # old stamps are warned about, which is written to the log
            reply = client.ask_about(header, np.full((60, 80, 3), 90, np.uint8), "key", LONG_S)
            assert reply is not None
            assert reply.detections.header == header
        assert node.exit_code is None
    assert list(folder.iterdir()) == []  # the full disk was the node's alone


def test_a_log_folder_that_cannot_be_made_is_named(monkeypatch, capsys):
    monkeypatch.setenv("ROS_LOG_DIR", "/proc/nowhere")
    done = subprocess.run([sys.executable, "-m", main.__name__], capture_output=True, text=True, timeout=LONG_S)
    assert done.returncode == 2
    assert "/proc/nowhere" in done.stderr
    assert "ROS_LOG_DIR" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("option", ["--json", "--out"])
def test_an_answer_that_finds_no_room_says_where_and_what_to_do(option, tmp_path, monkeypatch, capsys, repo):
    from acs_core import cli

    target = tmp_path / "answer.png"
    target.symlink_to("/dev/full")
    code = cli.main([str(repo / "docs" / "sample.png"), "key", "--samples", "1", option, str(target)])
    said = capsys.readouterr().err
    assert code == 1
    assert "answer.png" in said
    assert "No space left on device" in said
    assert "Free some space" in said
