import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
from process_parts import gone

from acs_ros.child import start_child
from acs_ros.dds import PROFILE_VARIABLE, profile_path

MODULE = """
    import json, os, sys, time
    print(json.dumps({"pid": os.getpid(), "arguments": sys.argv[1:], "environment": dict(os.environ)}), flush=True)
    if sys.argv[-1] == "stay":
        time.sleep(1000)
"""


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch, repo):
    """``some_child``, which tells how it was started."""
    (tmp_path / "some_child.py").write_text(textwrap.dedent(MODULE))
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
        from acs_ros.child import start_child
        start_child("some_child", ["stay"]).wait()
    """
    starter = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE)
    with starter:
        assert starter.stdout is not None
        pid = json.loads(starter.stdout.readline())["pid"]
        assert not gone(pid)
        starter.send_signal(signal.SIGKILL)
    until(lambda: gone(pid), "the child to end")
