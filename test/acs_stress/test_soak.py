"""A short soak of the real node over DDS: the harness runs, what it saw is in its report, and bad usage is named."""

import json
import os
import signal
import subprocess
import sys

import pytest

from acs_stress.journal import JOURNAL
from acs_stress.report import SUMMARY

pytestmark = pytest.mark.processes
LONG_S = 400.0


def soak(*arguments: str, domain: int = 0, **options) -> subprocess.CompletedProcess:
    env = {**os.environ, "ROS_DOMAIN_ID": str(domain or 1 + (os.getpid() + 20) % 100), "COLUMNS": "200"}
    command = [sys.executable, "-m", "acs_stress.cli", *arguments]
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
    for arguments, word in (
        (["--episode", "earthquake"], "no episode 'earthquake'"),
        (["--params", str(tmp_path / "none.yaml")], "there is no file"),
        (["--report", str(tmp_path)], "there is no journal"),
    ):
        done = soak(*arguments, "--out", str(tmp_path / "unused"), cwd=repo)
        assert done.returncode == 2
        assert word in " ".join(done.stderr.replace("│", " ").split())


def test_ctrl_c_stops_the_node_and_reports(tmp_path, repo):
    env = {**os.environ, "ROS_DOMAIN_ID": str(1 + (os.getpid() + 21) % 100)}
    command = [sys.executable, "-m", "acs_stress.cli", "--minutes", "60", "--episode", "jump", "--out", str(tmp_path)]
    process = subprocess.Popen(command, env=env, cwd=repo, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        for line in process.stderr:
            if "jump" in line:
                break
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=LONG_S)
    finally:
        process.kill()
    assert process.returncode == 1  # it did not come to its planned end
    assert "stopped" in said
    assert not json.loads((tmp_path / SUMMARY).read_text())["finished"]
