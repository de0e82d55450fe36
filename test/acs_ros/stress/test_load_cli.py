from __future__ import annotations

import json
from contextlib import contextmanager

import pytest
from typer.testing import CliRunner

import acs_ros.stress.load
import acs_ros.stress.scenarios
from acs_ros.errors import NodeTrouble
from acs_ros.stress.load import ScenarioResult
from acs_ros.stress.load_checks import Check
from acs_ros.stress.load_cli import app, main


@pytest.fixture
def node(monkeypatch):
    """Stands for the node: each scenario that is run, and what is to come of it."""
    ran, ends = [], {}

    @contextmanager
    def loaded_node(plan):
        ran.append(plan)
        yield "stage"

    def scenario(name):
        def run(stage):
            ran.append(name)
            return ScenarioResult(
                name, "much", "most of it", [Check("a promise", ends.get(name, True), "1 of [1]")], {"n": 1}
            )

        return run

    monkeypatch.setattr(acs_ros.stress.load, "loaded_node", loaded_node)
    monkeypatch.setattr(
        acs_ros.stress.scenarios, "SCENARIOS", {n: scenario(n) for n in ("cameras", "queries", "goals")}
    )
    return ran, ends


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "TERM": "dumb"})


def test_all_scenarios_are_run_or_those_that_are_named(node):
    ran, _ = node
    assert run().exit_code == 0 and ran[1:] == ["cameras", "queries", "goals"]
    ran.clear()
    assert run("--scenario", "goals", "--scenario", "cameras", "--scenario", "goals").exit_code == 0
    assert ran[1:] == ["goals", "cameras"]


def test_options_reach_the_plan(node):
    ran, _ = node
    options = "--cameras 3 --hz 12.5 --size 320x240 --seconds 2 --query-rate 9 --goals 5 --subscribers 1 --instant"
    assert run(*options.split(), "--service-ms", "50", "--answer-s", "3", "--memory-mb", "10").exit_code == 0
    plan = ran[0]
    assert (plan.cameras, plan.hz, plan.size, plan.seconds) == (3, 12.5, (320, 240), 2.0)
    assert (plan.query_rate, plan.goals, plan.subscribers, plan.instant) == (9.0, 5, 1, True)
    assert (plan.service_ms, plan.answer_s, plan.memory_mb) == (50.0, 3.0, 10.0)
    assert plan.camera_names == ["cam_1", "cam_2", "cam_3"]


def test_a_broken_promise_is_exit_code_1_and_all_is_written_down(node, tmp_path):
    _, ends = node
    ends["queries"] = False
    file = tmp_path / "load.json"
    done = run("--json", str(file))
    assert done.exit_code == 1 and "1 promise was broken" in done.output
    assert "BROKEN" in done.output and "1 of [1]" in done.output
    report = json.loads(file.read_text())
    assert [s["kept"] for s in report["scenarios"]] == [True, False, True] and not report["kept"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--scenario", "earthquake"], "'earthquake' is none of cameras, queries, goals"),
        (["--size", "640"], "'640' is not like 640x480"),
        (["--size", "8x480"], "sides are from 16 to 4096"),
        (["--size", "99999x480"], "sides are from 16 to 4096"),
        (["--instant", "--model", "other"], "takes no --model"),
        (["--json", "/nowhere/at/all.json"], "the folder /nowhere/at does not exist"),
        (["--cameras", "0"], "'--cameras'"),
        (["--seconds", "100000"], "'--seconds'"),
        (["--params", "/nowhere.yaml"], "does not exist"),
    ],
)
def test_wrong_usage_is_named(node, arguments, said):
    done = run(*arguments)
    assert done.exit_code == 2
    assert said in " ".join(done.output.replace("│", " ").split())


def test_a_parameter_file_for_another_node_is_refused(node, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").write_text("/grounder:\n  ros__parameters:\n    samples: 5\n")
    done = run("--params", "p.yaml")
    assert done.exit_code == 2 and node[0] == []
    said = " ".join(done.output.replace("│", " ").split())
    assert "nothing in p.yaml is for /grounding; it names /grounder" in said


def test_a_node_that_fails_is_told_in_words(node, monkeypatch, capsys):
    @contextmanager
    def no_node(plan):
        raise NodeTrouble("the node could not configure: [no model]")
        yield

    monkeypatch.setattr(acs_ros.stress.load, "loaded_node", no_node)
    monkeypatch.setattr("sys.argv", ["acs-load"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert "acs-load: the node could not configure: [no model]" in capsys.readouterr().err
