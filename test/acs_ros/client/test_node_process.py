"""Processes of the node and their logs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
from process_parts import gone

from acs_core.errors import OutputError
from acs_ros.client.node_process import MARK, NodeProcess, start_child
from acs_ros.dds import PROFILE_VARIABLE, profile_path

MODULE = """
    import json, os, sys, time
    print(json.dumps({"pid": os.getpid(), "arguments": sys.argv[1:], "environment": dict(os.environ)}), flush=True)
    if sys.argv[-1] == "stay":
        time.sleep(1000)
"""


@pytest.fixture(autouse=True)
def modules(tmp_path, monkeypatch, repo):
    """``some_child``, which tells how it was started, and ``some_node``, which prints two lines."""
    (tmp_path / "some_child.py").write_text(textwrap.dedent(MODULE))
    (tmp_path / "some_node.py").write_text("print('one')\nprint('two')\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{repo}")


def told(**options):
    with start_child("some_child", ["-x", "a b"], stdout=subprocess.PIPE, **options) as child:
        assert child.stdout is not None
        return child.pid, json.loads(child.stdout.read())


def test_arguments_and_environment_reach_it(monkeypatch):
    monkeypatch.setenv("MINE", "1")
    pid, said = told(env={"MORE": "2"})
    assert (said["pid"], said["arguments"]) == (pid, ["-x", "a b"])
    assert (said["environment"]["MINE"], said["environment"]["MORE"]) == ("1", "2")
    assert "MORE" not in os.environ


@pytest.mark.parametrize("named", [None, "/my/profile.xml"])
def test_the_shipped_profile_is_used_where_none_is_named(monkeypatch, named):
    monkeypatch.delenv(PROFILE_VARIABLE)
    _, said = told(env={PROFILE_VARIABLE: named} if named else None)
    assert said["environment"][PROFILE_VARIABLE] == (named or str(profile_path()))


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell a child of its starter's death")
def test_it_dies_with_its_starter(until):
    script = """
        from acs_ros.client.node_process import start_child
        start_child("some_child", ["stay"]).wait()
    """
    starter = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE)
    with starter:
        assert starter.stdout is not None
        pid = json.loads(starter.stdout.readline())["pid"]
        assert not gone(pid)
        starter.send_signal(signal.SIGKILL)
    until(lambda: gone(pid), "the child to end")


LONG_S = 60.0


def run(log):
    with NodeProcess([], log, module="some_node") as process:
        process.wait(LONG_S)
    return process


def test_the_log_carries_its_mark_which_is_none_of_its_last_lines(tmp_path):
    log = tmp_path / "node.log"
    for _ in range(2):  # the second run writes over the first one's
        process = run(log)
        assert log.read_text() == f"{MARK}\none\ntwo\n"
    assert process.last_lines() == "one\ntwo"
    assert process.last_lines(1) == "two"


def test_a_file_that_is_no_log_of_a_node_stays_and_nothing_is_started(tmp_path):
    log = tmp_path / "node.log"
    log.write_text("mine")
    process = NodeProcess([], log, module="some_node")
    with pytest.raises(OutputError, match=r"node\.log exists, and acs did not write it"), process:
        pass
    assert log.read_text() == "mine" and process.pid == 0


def test_a_folder_in_the_logs_place_is_named(tmp_path):
    (tmp_path / "node.log").mkdir()
    with pytest.raises(OutputError, match="is a folder"), NodeProcess([], tmp_path / "node.log"):
        pass
