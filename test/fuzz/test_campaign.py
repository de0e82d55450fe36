"""Campaigns: recorded, and not ended by what ends their process."""

import json

import pytest
from typer.testing import CliRunner

from fuzz import campaign
from fuzz.campaign import run_campaign
from fuzz.cli import app
from fuzz.worker import Recorder, random_case, read_current


def test_a_campaign_counts_its_cases(tmp_path):
    done = CliRunner().invoke(
        app, ["--target", "converter", "--cases", "30", "--engine", "random", "--json", str(tmp_path / "a.json")]
    )
    assert done.exit_code == 0, done.output
    (record,) = json.loads((tmp_path / "a.json").read_text())["targets"]
    assert (record["target"], record["cases"], record["defects"], record["seed"]) == ("converter", 30, [], 0)
    assert {"python", "numpy", "pillow"} <= set(record["versions"])


def test_a_process_that_hangs_is_ended_and_told(monkeypatch):
    monkeypatch.setattr(campaign, "MAX_DEATHS", 1)
    record = run_campaign("converter", 10**9, 0, "random", lambda done: None, stall=0.0)
    (defect,) = record.defects
    assert defect["where"].startswith("hang")


def test_a_process_that_dies_is_told_with_its_case(monkeypatch, tmp_path):
    (tmp_path / "python").write_text("#!/bin/sh\necho why >&2\nkill -SEGV $$\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(campaign.sys, "executable", str(tmp_path / "python"))
    record = run_campaign("converter", 2, 0, "random", lambda done: None)
    assert record.cases == 2 and "crash: exit status -11" in record.defects[0]["where"]


def test_what_is_at_work_survives_a_crash(tmp_path):
    recorder = Recorder("converter", tmp_path)
    for number in range(3):
        recorder.run(random_case(0, number))
    assert read_current(tmp_path) == (2, random_case(0, 2))  # two done, the third at work
    assert read_current(tmp_path / "nothing") == (0, b"")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--target", "nope"], "no target 'nope'"),
        (["--engine", "nope"], "none of auto"),
        (["--cases", "0"], "greater than or equal to 1"),
    ],
)
def test_wrong_usage_is_told(arguments, said):
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2 and said in done.output


def test_one_case_is_run_again():
    done = CliRunner().invoke(app, ["--target", "converter", "--case", "00"])
    assert done.exit_code == 0
    assert "parser" in CliRunner().invoke(app, ["--list"]).output
