"""``make gpu-check`` without a GPU: budgets, what is left out, the page, and the smallest run. Nothing is timed."""

import json
import re
import threading

import pytest
import torch
from typer.testing import CliRunner

from acs_core.bench import cli
from acs_core.bench import gpu_check as module
from acs_core.bench.goals import SAMPLES, STEP, TOGETHER
from acs_core.bench.gpu_check import BUDGETS, CheckPlan, Found, Part, PartResult, parts_of, run_parts, stopped_after
from acs_core.bench.gpu_page import NO_GPU, TITLES, gpu_page
from acs_core.bench.measure import MachineInfo
from acs_core.bench.options import DOES_NOT_RUN as NO_RUN
from acs_core.bench.options import KERNEL, ON, VISION, OptionRow, OptionsReport

CPU = MachineInfo("a processor", 2, 1, "", "2.13", "5.23", "2026-01-01")
GPU = MachineInfo("a processor", 2, 1, "a GPU", "2.13", "5.23", "2026-01-01")


class Clock:
    """A clock that parts move on."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def part(self, kind, takes, found=None, error=None):
        def run(may_go_on):
            assert may_go_on()
            self.now += takes
            assert may_go_on() == (takes < BUDGETS[kind])
            if error:
                raise error
            return found or Found({})

        return Part(kind, "7b", "640x480", run)


def results_of(clock, parts, total):
    results = []
    run_parts(parts, lambda: total - clock.now, results, clock=clock)
    return results


def test_a_part_whose_budget_does_not_fit_is_named():
    clock = Clock()
    results = results_of(clock, [clock.part("whole", 70), clock.part("ctranslate2", 9), clock.part("phrases", 9)], 100)
    assert [r.left_out for r in results] == ["", "its 60 s did not fit: 30 s were left", ""]
    assert [r.seconds for r in results] == [70, 0, 9] and clock.now == 79


def test_a_part_that_fails_is_named_and_the_others_go_on():
    clock = Clock()
    parts = [
        clock.part("limits", 1, error=ValueError("no such kernel")),
        clock.part("limits", 1, error=torch.OutOfMemoryError()),
        clock.part("limits", 1),
    ]
    assert [r.left_out for r in results_of(clock, parts, 100)] == [
        "failed: ValueError: no such kernel",
        "out of memory",
        "",
    ]


def test_the_running_part_is_named_while_it_runs():
    seen = []
    results = []
    part = Part("text", "7b", "640x480", lambda _: seen.append(results[-1].left_out) or Found({}))
    run_parts([part], lambda: 100.0, results)
    assert seen == ["it was still running when the time was over"] and results[0].left_out == ""


def test_a_run_that_hangs_is_stopped_and_one_that_ends_is_not():
    stopped = threading.Event()
    with stopped_after(0.0, stopped.set):
        assert stopped.wait(60)
    never = threading.Event()
    with stopped_after(3600.0, never.set):
        pass
    assert not never.is_set()
    assert not [t for t in threading.enumerate() if isinstance(t, threading.Timer) and not t.finished.is_set()]


def test_every_shape_and_frame_has_its_parts():
    plan = CheckPlan(torch.device("cpu"), ("7b", "8b"), ((640, 480), (1920, 1080)), 10, 2, 480.0, 0.0)
    names = [part.name for part in parts_of(plan)]
    assert len(set(names)) == len(names) == 16 and set(TITLES) == set(BUDGETS)
    for shape in ("7b", "8b"):
        assert {f"{kind}, {shape}, 640x480" for kind in BUDGETS} <= set(names)
        assert {f"{kind}, {shape}, 1920x1080" for kind in ("whole", "limits")} <= set(names)
    assert names[-2:] == ["ctranslate2, 7b, 640x480", "ctranslate2, 8b, 640x480"]
    assert all(budget < 480 for budget in BUDGETS.values())


def test_the_page_says_what_is_met_missed_and_left_out():
    results = [
        PartResult(
            "phrases",
            "7b",
            "640x480",
            3.0,
            found=Found(
                {"phrases": 4, "samples": 10, "together_s": 1.0, "apart_s": 2.5, "ratio": 0.4, "same_responses": 39},
                {TOGETHER: 0.4},
            ),
        ),
        PartResult(
            "options",
            "7b",
            "640x480",
            3.0,
            found=Found(
                OptionsReport(10, (OptionRow(KERNEL, ON, 7.25), OptionRow(VISION, ON, None, NO_RUN))).to_dict()
            ),
        ),
        PartResult("limits", "7b", "640x480", left_out="its 25 s did not fit: 9 s were left"),
        PartResult(
            "whole",
            "7b",
            "640x480",
            3.0,
            found=Found(
                {
                    "rows": [
                        {
                            "way": "e",
                            "samples": 10,
                            "seconds": 0.5,
                            "added_mb": None,
                            "tokens_per_s": 800.0,
                            "note": "",
                        },
                        {
                            "way": "a",
                            "samples": 10,
                            "seconds": None,
                            "added_mb": None,
                            "tokens_per_s": None,
                            "note": "a | b",
                        },
                    ],
                    "ratios": {"time e / b": 0.25},
                    "stages_ms": {"reading": 98.0},
                    "weights_mb": 15800.0,
                    "image_tokens": 391,
                    "prompt_tokens": 594,
                    "new_tokens": 41,
                }
            ),
        ),
    ]
    page = gpu_page(results, GPU, 10, 99.0, "acs-bench gpu-check")
    assert NO_GPU not in page and "a GPU; torch 2.13" in page
    assert f"| {TOGETHER}, 7b, 640x480 | at most 0.5 | 0.4 | met |" in page
    assert f"| {STEP}, 7b, 640x480 | at most 1.2 | - | not measured |" in page
    assert "| Limits of the hardware: 7b, 640x480 | its 25 s did not fit: 9 s were left |" in page
    assert "| (e) ours, ACS-Learned, all maps | 10 | 0.5 | 800 | - |" in page and "a \\| b" in page
    assert f"| {KERNEL} | on | 7.25 ms |" in page and f"| {VISION} | on | {NO_RUN} |" in page
    assert "(e) by stage: reading 98.0 ms." in page
    assert f"**{NO_GPU}.**" in gpu_page(results, CPU, 10, 99.0, "acs-bench gpu-check")


@pytest.mark.long
def test_the_smallest_run(tmp_path):
    folder = tmp_path / "found"
    words = ["--shapes", "tiny-internvl", "--frames", "64x64", "--samples", "2", "--repeats", "1", "--threads", "1"]
    result = CliRunner().invoke(
        cli.app, ["gpu-check", "--out", str(folder), *words, "--seconds", "86400", "--device", "cpu"]
    )
    assert result.exit_code == 0, result.output
    found = json.loads((folder / "gpu_check.json").read_text())
    assert [part["kind"] for part in found["parts"]] == ["whole", "limits", "phrases", "options", "text", "ctranslate2"]
    assert all(part["left_out"] == "" for part in found["parts"])
    page = (folder / "gpu_check.md").read_text()
    assert NO_GPU in page and page.count("\n## ") == 2 + 6 and "Nothing." in page
    goals = {goal["ratio"]: goal for part in found["parts"] for goal in part["goals"]}
    assert {STEP, SAMPLES, TOGETHER} <= set(goals) and all(goal["met"] is not None for goal in goals.values())


def test_a_run_without_time_leaves_everything_out(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BUDGETS", dict.fromkeys(BUDGETS, 1e6))
    words = ["gpu-check", "--out", str(tmp_path / "found"), "--seconds", "100", "--device", "cpu", "--threads", "1"]
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 0 and len(re.findall(r"left out: .* did not fit", result.output)) == 16
    assert len(json.loads((tmp_path / "found" / "gpu_check.json").read_text())["parts"]) == 16


def test_a_part_that_failed_is_an_exit_code(tmp_path, monkeypatch):
    def broken(*_):
        raise ValueError("no such kernel")

    monkeypatch.setattr(module, "_phrases", broken)
    for kind in ("_whole", "_limits", "_options"):
        monkeypatch.setattr(module, kind, lambda *_: Found({}))
    monkeypatch.setattr("acs_core.bench.gpu_page._body", lambda result: [])
    words = ["gpu-check", "--out", str(tmp_path / "found"), "--seconds", "86400", "--device", "cpu", "--threads", "1"]
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 1 and "failed: ValueError: no such kernel" in result.output


@pytest.mark.parametrize(("words", "message"), [(["--shapes", "7b,"], "7b,8b"), (["--frames", "big"], "640x480")])
def test_wrong_usage_is_explained(tmp_path, words, message):
    result = CliRunner().invoke(cli.app, ["gpu-check", "--out", str(tmp_path / "found"), *words])
    assert result.exit_code == 2 and message in result.output and not (tmp_path / "found").exists()
