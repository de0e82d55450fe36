"""The set-up does what is due, once, and does not trust what was cut short."""

import json
import os
import signal
import subprocess
import sys
import time

import locked
import pytest
from build_interfaces import InterfaceBuild, clean_environment
from run_logged import StepFailed, run_logged
from set_up import ROOT, SetUp, digest


@pytest.fixture
def set_up(tmp_path) -> SetUp:
    made = SetUp(tmp_path / "venv")
    made.work.mkdir(parents=True)
    return made


def silent(line: str) -> None:
    pass


def test_a_step_runs_once_and_again_after_a_change(set_up):
    runs = []
    for stamp in ("a", "a", "b", "b"):
        set_up._step("wheels", stamp, "title", lambda stamp=stamp: runs.append(stamp))
    assert runs == ["a", "b"]


def test_a_step_that_failed_is_due_again(set_up):
    def fail():
        raise StepFailed("no network")

    runs = []
    set_up._step("wheels", "a", "title", lambda: None)
    with pytest.raises(StepFailed, match="no network"):
        set_up._step("wheels", "b", "title", fail)
    assert "wheels" not in set_up._stamps()
    set_up._step("wheels", "a", "title", lambda: runs.append("again"))
    assert runs == ["again"]


def test_stamps_that_cannot_be_read_make_every_step_due(set_up):
    set_up.stamp_file.write_text('{"wheels": "a"')
    assert set_up._stamps() == {}


def test_an_environment_whose_wheels_were_cut_short_is_not_usable(set_up):
    assert not set_up._usable({"venv": str(set_up.venv)})
    assert not set_up._usable({"venv": "/elsewhere", "wheels": "a"})


@pytest.mark.parametrize(("stamps", "usable"), [({}, {"kilted"}), ({"ros": "jazzy"}, {"jazzy"})])
def test_an_environment_is_not_turned_into_one_of_another_distribution(tmp_path, stamps, usable):
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    full = {"venv": str(venv), "wheels": "a", **stamps}
    assert {ros for ros in locked.DISTRIBUTIONS if SetUp(venv, ros)._usable(full)} == usable


def test_a_folder_of_someone_else_is_left_alone(tmp_path):
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "mine.txt").write_text("precious")
    with pytest.raises(StepFailed, match="not made by this set-up"):
        SetUp(tmp_path / "venv").bring_up_to_date()
    assert (tmp_path / "venv" / "mine.txt").read_text() == "precious"


def test_digest_sees_content_names_and_new_files(tmp_path, monkeypatch):
    monkeypatch.setattr("set_up.ROOT", tmp_path)
    folder = tmp_path / "msg"
    folder.mkdir()
    seen = [digest([folder])]
    (folder / "A.msg").write_text("bool a")
    seen.append(digest([folder]))
    (folder / "A.msg").write_text("bool b")
    seen.append(digest([folder]))
    (folder / "A.msg").rename(folder / "B.msg")
    seen.append(digest([folder]))
    assert len(set(seen)) == 4
    assert digest([folder]) == seen[-1]
    assert digest([folder], "another Python") != seen[-1]


def test_a_failure_shows_the_last_lines_and_the_log(tmp_path):
    log = tmp_path / "build.log"
    script = "for i in range(40): print('line', i)\nraise SystemExit(3)"
    with pytest.raises(StepFailed) as failure:
        run_logged([sys.executable, "-c", script], log, os.environ, silent)
    message = str(failure.value)
    assert "status 3" in message
    assert "line 39" in message
    assert "line 20" not in message
    assert str(log) in message
    assert "line 0" in log.read_text()


def test_interrupting_stops_the_command_too(tmp_path):
    pid = tmp_path / "pid"
    child = f"import os, pathlib, time; pathlib.Path({str(pid)!r}).write_text(str(os.getpid())); time.sleep(60)"
    parent = (
        f"import os, sys; sys.path.insert(0, {str(ROOT / 'tools')!r}); from run_logged import run_logged; "
        f"import pathlib; run_logged([sys.executable, '-c', {child!r}], pathlib.Path({str(tmp_path / 'log')!r}), "
        "os.environ, print)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stderr=subprocess.DEVNULL)
    while not (pid.exists() and pid.read_text()):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) != 0
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_a_sourced_distribution_stays_out(tmp_path):
    sourced = {
        "PATH": "/usr/bin",
        "HOME": "/home/me",
        "PYTHONPATH": "/opt/ros/x/lib/python3.12/site-packages",
        "LD_LIBRARY_PATH": "/opt/ros/x/lib",
        "AMENT_PREFIX_PATH": "/opt/ros/x",
        "ROS_DISTRO": "x",
        "_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1",
        "MAKEFLAGS": "-j8",
    }
    clean = clean_environment(tmp_path, sourced)
    assert clean == {
        "PATH": f"{tmp_path / 'bin'}:/usr/bin",
        "HOME": "/home/me",
        "AMENT_PREFIX_PATH": str(tmp_path),
        "CMAKE_PREFIX_PATH": str(tmp_path),
    }


def test_a_provided_message_package_is_used_and_ours_is_not_mistaken_for_it(tmp_path):
    venv = tmp_path / "venv"
    build = InterfaceBuild(tmp_path / "vision_msgs", venv, tmp_path / "work")
    assert not build.is_provided()
    marker = venv / "share/ament_index/resource_index/packages/vision_msgs"
    marker.parent.mkdir(parents=True)
    marker.touch()
    assert build.is_provided()
    build.work.mkdir(parents=True)  # our own build began once: the marker is ours, finished or not
    assert not build.is_provided()


def test_what_an_earlier_build_installed_is_taken_out(tmp_path):
    venv = tmp_path / "venv"
    build = InterfaceBuild(tmp_path / "acs_msgs", venv, tmp_path / "work")
    build.work.mkdir(parents=True)
    (venv / "share").mkdir(parents=True)
    ours, theirs, outside = venv / "share" / "Old.msg", venv / "share" / "Other.msg", tmp_path / "outside.txt"
    for path in (ours, theirs, outside):
        path.write_text("x")
    build.manifest.write_text(f"{ours}\n{outside}\n{venv / 'share' / 'gone.msg'}\n")
    build._remove_installed()
    assert [path.exists() for path in (ours, theirs, outside)] == [False, True, True]


def test_stamps_are_readable(set_up):
    set_up._step("package", "a", "title", lambda: None)
    assert json.loads(set_up.stamp_file.read_text()) == {"package": "a"}
