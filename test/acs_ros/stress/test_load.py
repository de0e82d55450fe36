"""Each scenario for a second against the node over DDS: what the harness needs works, and the counts are exact."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from process_parts import gone

from acs_ros.stress.load import LoadConfig
from acs_ros.stress.scenarios import SCENARIOS

pytestmark = pytest.mark.processes
LONG_S = 400.0
SMALL = ["--instant", "--cameras", "2", "--hz", "5", "--size", "64x48", "--seconds", "1"]
# Bars that no machine misses: nothing is timed here.
EASY = ["--service-ms", "60000", "--answer-s", "60", "--memory-mb", "100000"]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "acs_ros.stress.load_cli", *arguments]


def test_every_scenario_keeps_its_promises_and_is_written_down(tmp_path, repo):
    file = tmp_path / "load.json"
    few = ["--query-rate", "200", "--goals", "12", "--subscribers", "1", "--json", str(file)]
    done = subprocess.run(command(*SMALL, *EASY, *few), cwd=repo, capture_output=True, text=True, timeout=LONG_S)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(file.read_text())
    assert report["kept"] and [s["name"] for s in report["scenarios"]] == list(SCENARIOS)
    cameras, queries, goals, subscribers = report["scenarios"]
    assert cameras["numbers"]["counted"]["frames_answered"] > 0 and len(cameras["numbers"]["newest_s"]) == 2
    assert queries["numbers"]["counted"]["queries"] > 0 and queries["numbers"]["counted"]["rejected_queries"] > 0
    (goal_sender,) = (f for f in goals["numbers"]["clients"] if f["role"] == "goals")
    assert goal_sender["ended"] == goal_sender["sent"] == goals["numbers"]["counted"]["goals"] == 12
    assert [f["role"] for f in subscribers["numbers"]["clients"]] == ["camera", "subscriber", "subscriber", "services"]
    promises = {check["promise"] for scenario in report["scenarios"] for check in scenario["checks"]}
    assert {"memory bounded", "newest frame answered", "counts of frames exact", "last query in force"} <= promises
    assert all(promise in done.stdout for promise in promises)


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def threads(pid: str) -> int:
    try:
        return len(list(Path(f"/proc/{pid}/task").iterdir()))
    except OSError:  # it has just ended
        return 0


def on_dds(pid: int) -> int:
    """How many children have threads, which is since they are on DDS."""
    return sum(threads(child) > 1 for child in children(pid))


def test_ctrl_c_ends_the_node_and_all_who_load_it(tmp_path, repo, until):
    process = subprocess.Popen(
        command(*SMALL[:-1], "60", "--scenario", "cameras"),
        cwd=repo,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        # not when they are forked: Python drops what Ctrl-C raises in that moment
        until(lambda: on_dds(process.pid) == 4, "the node, two cameras and a caller")
        everybody = children(process.pid)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
        _, said = process.communicate(timeout=LONG_S)
    finally:
        process.kill()
    assert process.returncode == 130
    assert said.splitlines()[-1] == "acs-load: stopped" and "Traceback" not in said
    until(lambda: all(gone(child) for child in everybody), "everybody's end")


def test_a_node_that_cannot_come_up_is_told_with_its_last_words(tmp_path, repo):
    params = tmp_path / "wrong.yaml"
    params.write_text("/**:\n  ros__parameters:\n    samples: -3\n")
    done = subprocess.run(command("--params", str(params)), cwd=repo, capture_output=True, text=True, timeout=LONG_S)
    assert done.returncode == 1
    assert "exit code 2" in done.stderr and "samples must be in [1, 256]" in done.stderr


def test_the_nodes_arguments():
    plan = LoadConfig(cameras=2, instant=True)
    assert "cameras:='cam_1 cam_2'" in plan.ros_args() and "--params-file" not in plan.ros_args()
    with_model = LoadConfig(model="tiny-qwen2.5-vl", params=Path("my.yaml")).ros_args()
    assert with_model[:2] == ["--params-file", "my.yaml"] and with_model[-1] == "model:=tiny-qwen2.5-vl"
