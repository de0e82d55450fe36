"""A short soak of the real node over DDS: the harness runs, what it saw is in its report, and bad usage is named."""

import json
import os
import signal
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from acs_core.output_folder import LOCK, MARKER
from acs_ros.stress.soak_cli import app
from acs_ros.stress.soak_journal import JOURNAL, SoakLog
from acs_ros.stress.soak_report import SUMMARY

pytestmark = pytest.mark.processes
LONG_S = 1200.0


def soak(*arguments: str, **options) -> subprocess.CompletedProcess:
    env = {**os.environ, "COLUMNS": "200"}
    command = [sys.executable, "-m", "acs_ros.stress.soak_cli", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=LONG_S, **options)


def test_a_short_soak_of_hard_episodes_breaks_no_promise(tmp_path, repo):
    """One round; then the node is killed, another takes its place, and those who asked before get their answers."""
    chosen = ("nonsense", "faults", "deactivation", "peers", "goals")
    episodes = [word for name in chosen for word in ("--episode", name)]
    done = soak("--minutes", "0", "--out", str(tmp_path), *episodes, cwd=repo)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / SUMMARY).read_text())
    assert report["finished"]
    assert report["problems"] == []
    assert report["answers"] > 20
    assert {e["name"] for e in report["episodes"]} == {"probe", *chosen, "killed and respawned", "froze and respawned"}
    faults = next(e for e in report["episodes"] if e["name"] == "faults")
    # once a run; a node that froze (eProsima/Fast-DDS#6485) is replaced, and begins its round again
    assert all(faults["counts"].get(f"{fault}: told") == faults["runs"] for fault in ("error", "out of memory, always"))
    assert "broken promises" in done.stdout


def test_a_node_that_cannot_come_up_is_told_with_its_last_words(tmp_path, repo):
    params = tmp_path / "wrong.yaml"
    params.write_text("/**:\n  ros__parameters:\n    samples: -3\n")
    done = soak("--params", str(params), "--out", str(tmp_path / "out"), cwd=repo)
    assert done.returncode == 2
    assert "exit code 2" in done.stderr
    assert "first round" in done.stderr
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "out" / JOURNAL).read_text().splitlines()]
    assert [kind for kind in kinds if kind != "sample"] == ["begin", "died"]


def test_wrong_usage_is_named(tmp_path, repo):
    other = tmp_path / "other.yaml"
    other.write_text("/grounder:\n  ros__parameters:\n    samples: 5\n")
    for arguments, word in (
        (["--episode", "earthquake"], "no episode 'earthquake'"),
        (["--params", str(tmp_path / "none.yaml")], "there is no file"),
        (["--params", str(other)], "it names /grounder"),
        (["--report", str(tmp_path)], "there is no journal"),
    ):
        done = soak(*arguments, "--out", str(tmp_path / "unused"), cwd=repo)
        assert done.returncode == 2
        assert word in " ".join(done.stderr.replace("│", " ").split())


def snapshot(folder):
    return {file.name: file.read_text() for file in folder.iterdir() if file.name != LOCK}


@pytest.mark.parametrize("name", [JOURNAL, "node.log", "node-2.log", "node-10.log", "killed.log", "froze.log"])
def test_a_file_of_the_user_in_a_folder_of_a_soak_stays(tmp_path, name):
    marker = {"schema_version": 1, "written_by": "acs-soak", "pending": [], "files": {}}
    (tmp_path / MARKER).write_text(json.dumps(marker))
    (tmp_path / name).write_text('{"kind": "begin", "mine": true}\n')
    before = snapshot(tmp_path)
    done = CliRunner().invoke(app, ["--minutes", "0", "--out", str(tmp_path)])
    assert done.exit_code == 2, done.output
    assert f"{name} exists, and acs did not write it" in done.stderr
    assert {key: text for key, text in snapshot(tmp_path).items() if key != MARKER} == {name: before[name]}


def test_only_a_journal_of_a_soak_makes_a_folder_one_of_a_soak(tmp_path):
    """A run that was killed before its folder was marked can be reported; a file of that name is not enough."""
    (tmp_path / "holiday.jpg").write_text("mine")
    notes = [{"kind": "begin", "minute": 0.0, "machine": {}, "seed": 0, "wanted": 0, "params": "", "model": ""}]
    (tmp_path / JOURNAL).write_text(json.dumps(notes[0]) + "\n")
    done = CliRunner().invoke(app, ["--report", str(tmp_path)])
    assert done.exit_code == 2 and "acs did not make it" in done.stderr
    with SoakLog(tmp_path / "own") as journal:
        journal.note("begin", machine={})
    (tmp_path / "own").replace(tmp_path / JOURNAL)
    done = CliRunner().invoke(app, ["--report", str(tmp_path)])
    assert done.exit_code == 2 and "first round" in done.stderr  # the next thing that is wrong


def test_ctrl_c_stops_the_node_and_reports(tmp_path, repo):
    command = [
        sys.executable,
        "-m",
        "acs_ros.stress.soak_cli",
        "--minutes",
        "60",
        "--episode",
        "jump",
        "--out",
        str(tmp_path),
    ]
    process = subprocess.Popen(command, cwd=repo, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        for line in process.stderr:
            if "jump" in line:
                break
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=LONG_S)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "stopped" in said
    assert not json.loads((tmp_path / SUMMARY).read_text())["finished"]
