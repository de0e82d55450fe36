"""``acs-bench`` as it is installed has the command that needs ROS beside those that do not."""

import json
import os

import pytest
from typer.testing import CliRunner

from acs_core.bench import console
from acs_ros.stress.bench_cli import app


@pytest.mark.processes
def test_the_price_of_ros(tmp_path, monkeypatch):
    monkeypatch.setattr(console.out, "width", 200)
    monkeypatch.setattr("acs_ros.stress.round_trip.WARM_UP", 1)
    monkeypatch.setattr("acs_ros.stress.round_trip.ANSWER_S", 60.0)  # a busy machine answers late, not never
    monkeypatch.setattr("acs_ros.stress.round_trip.PATIENCE_S", 300.0)
    file = tmp_path / "out.json"
    arguments = ["ros", "--sizes", "64x48,160x120", "--frames", "5", "--json", str(file)]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = json.loads(file.read_text())
    told = [(row["size"], row["awake"]) for row in found["rows"]]
    assert told[:2] == [("64x48", False), ("160x120", False)]
    assert told[2:] == ([("64x48", True), ("160x120", True)] if hasattr(os, "SCHED_IDLE") else [])
    assert all(row["frames"] == 5 and 0 <= row["lost"] < 5 for row in found["rows"])
    assert all(0 < row["p50_ms"] <= row["p95_ms"] <= row["most_ms"] for row in found["rows"])  # as they are defined
    assert "p50, ms" in result.output


def test_wrong_usage_is_explained():
    result = CliRunner().invoke(app, ["ros", "--sizes", "640"])
    assert result.exit_code == 2 and "640x480" in result.output


def test_the_benchmarks_without_ros_are_there_too():
    named = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert "ros" in named and {"phrases", "limits"} <= named
