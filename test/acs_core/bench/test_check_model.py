"""The checks of a checkpoint pass for models that are right, and fail for each thing that may be wrong."""

import json
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from recorded_answers import real_tokenizer
from typer.testing import CliRunner

from acs_core.artifacts.registry import ASSETS
from acs_core.bench import check_model as module
from acs_core.bench import cli, console
from acs_core.bench.check_model import (
    STATEMENTS,
    ModelCheck,
    ModelReport,
    check_budget,
    check_maps,
    check_model,
    check_prompt,
    check_token_rule,
)
from acs_core.bench.frames import render_questions
from acs_core.bench.measure import MachineInfo
from acs_core.bench.model_page import model_page
from acs_core.lvlm import load_lvlm
from acs_core.lvlm.base import LoadedLVLM
from acs_core.lvlm.picture import PictureOptions

NAMES = ["prompt", "token rule", "attention maps", "picture budget", "coordinate frame", "speed"]
FRAMES = ((150, 90), (300, 200))


def test_a_right_model_passes(lvlm):
    report = check_model(lvlm, 2, 8, 1, FRAMES, ask=lambda *_: ("[]", True))
    assert [check.name for check in report.checks] == NAMES
    assert [check.passed for check in report.checks] == [True, True, True, True, None, None]
    assert report.failed == ()
    numbers = {check.name: check.numbers for check in report.checks}
    assert numbers["token rule"]["coordinates"] == 4 * len(STATEMENTS)
    assert [row["frame"] for row in numbers["speed"]["rows"]] == ["150x90", "300x200"]
    assert json.loads(json.dumps(report.to_dict()))["model"]["name"] == lvlm.name.rsplit("/", 1)[-1]


def test_a_prompt_that_is_not_the_processors_fails(lvlm, monkeypatch):
    real = LoadedLVLM.prepare

    def other(self, image, phrase):
        prompt = real(self, image, phrase)
        return replace(prompt, input_ids=prompt.input_ids[:, 1:])

    monkeypatch.setattr(LoadedLVLM, "prepare", other)
    check = check_prompt(lvlm)
    assert (
        check.passed is False and check.said.startswith("0 of 4 prompts") and "differing from position 0" in check.said
    )


def test_other_pixels_are_not_reported_as_other_ids(lvlm, monkeypatch):
    real = LoadedLVLM.prepare

    def brighter(self, image, phrase):
        prompt = real(self, image, phrase)
        return replace(prompt, vision={name: value + 1 for name, value in prompt.vision.items()})

    monkeypatch.setattr(LoadedLVLM, "prepare", brighter)
    check = check_prompt(lvlm)
    assert check.passed is False and check.said.startswith("4 of 4 prompts have the ids")
    assert "differing" not in check.said and "; other pixels for (key), (" in check.said
    assert check.numbers["differing"] == {} and len(check.numbers["other_pixels"]) == 4


@pytest.mark.parametrize("family", ["internvl", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_the_published_vocabularies_pass_the_token_rule(family):
    check = check_token_rule(SimpleNamespace(tokenizer=real_tokenizer(family)))
    assert check.passed, check.said
    assert check.numbers["coordinates"] == 4 * len(STATEMENTS)


def test_coordinates_of_another_token_fail(lvlm, monkeypatch):
    real = module.decode_with_tokens

    def shifted(tokenizer, ids):
        text, writers = real(tokenizer, ids)
        return text, [min(w + 1, len(ids) - 1) for w in writers]

    monkeypatch.setattr(module, "decode_with_tokens", shifted)
    check = check_token_rule(lvlm)
    assert check.passed is False and "is attributed to token" in check.said


def test_a_tokenizer_that_loses_text_fails(lvlm, monkeypatch):
    real = module.decode_with_tokens
    monkeypatch.setattr(module, "decode_with_tokens", lambda t, ids: real(t, ids[:-1]))
    check = check_token_rule(lvlm)
    assert check.passed is False and check.said.startswith("0 of 0 coordinates")
    assert f"{len(STATEMENTS)} of {len(STATEMENTS)} statements are decoded as another text" in check.said


def test_a_tokenizer_that_drops_digits_fails(lvlm):
    class NoNines:
        def __call__(self, text, **options):
            return lvlm.tokenizer(text.replace("9", ""), **options)

        def decode(self, ids, **options):
            return lvlm.tokenizer.decode(ids, **options)

    check = check_token_rule(SimpleNamespace(tokenizer=NoNines()))
    assert check.passed is False and check.numbers["coordinates"] == 4 and len(check.numbers["undecoded"]) == 4


@pytest.mark.parametrize(("gap", "passed"), [(1e-6, True), (1e-2, False)])
def test_maps_must_equal_those_of_eager_attention(lvlm, monkeypatch, gap, passed):
    real = module.our_maps
    monkeypatch.setattr(module, "our_maps", lambda work: real(work) + np.float32(gap))
    assert check_maps(lvlm).passed is passed


def test_in_half_precision_maps_must_correlate(model_folders, monkeypatch):
    lvlm = load_lvlm(model_folders["internvl"], device="cpu", dtype="bfloat16")
    check = check_maps(lvlm)
    assert check.passed and check.numbers["largest_gap"] > 1e-4 and "a correlation of at least" in check.said
    monkeypatch.setattr(module, "our_maps", lambda work: np.random.default_rng(0).random(module.eager(work).shape))
    assert check_maps(lvlm).passed is False


@pytest.mark.parametrize(("budget", "passed"), [(16, True), (None, None)])
def test_the_budget_holds(model_folders, budget, passed):
    lvlm = load_lvlm(model_folders["qwen2_5_vl"], device="cpu", max_image_tokens=budget)
    if budget is None:
        lvlm = replace(lvlm, picture=PictureOptions())
    assert check_budget(lvlm, FRAMES).passed is passed


def test_a_processor_that_ignores_the_budget_fails(model_folders):
    lvlm = load_lvlm(model_folders["qwen2_5_vl"], device="cpu")
    told = replace(lvlm, picture=PictureOptions(16))
    check = check_budget(told, FRAMES)
    assert check.passed is False and "the budget is 16" in check.said


def test_an_error_of_one_check_leaves_the_others(lvlm):
    def broken(*_):
        raise RuntimeError(f"CUDA error of {lvlm.name}/config.json\ntriggered")

    report = check_model(lvlm, 2, 8, 1, FRAMES[:1], ask=broken)
    assert [check.passed for check in report.checks] == [True, True, True, True, None, None]
    assert report.checks[4].said == f"not done: RuntimeError: CUDA error of {report.model['name']}/config.json"


def test_the_page_shows_model_output_as_text():
    machine = MachineInfo("a CPU", 2, 1, "", "2", "5", "2026-01-01")
    model = dict.fromkeys(("family", "layers", "heads", "dtype", "device", "max_image_tokens", "coordinate_frame"), "x")
    answer = {"image_size": [4, 3], "input_size": [2, 1], "truth": [0], "values": None, "text": "<script>|`[a](b)\n"}
    fits = [{"frame": "0-1", "mean_iou": 0.5, "hits": 0.25}]
    check = ModelCheck("coordinate frame", None, "why", {"fits": fits, "answers": [answer]})
    report = ModelReport({"name": "a|b", "revision": None, "weights_mb": 3, **model}, machine, (check,))
    page = model_page(report, "acs-bench check-model")
    assert page.startswith("<!-- written by acs-bench check-model -->\n# Report on a\\|b\n")
    assert "<script>" not in page and "\\[a](b)" in page and "| 0-1 | 0.500 | 25% |" in page
    tables = re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE)
    assert len(tables) == 3 and all(
        len({len(re.findall(r"(?<!\\)\|", r)) for r in t.splitlines()}) == 1 for t in tables
    )


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(console.out, "width", 300)
    monkeypatch.chdir(tmp_path)
    questions = render_questions(((480, 200), (200, 480), (260, 200)))
    monkeypatch.setattr(module, "render_questions", lambda: questions)
    options = ["--device", "cpu", "--samples", "2", "--new-tokens", "8", "--repeats", "1", "--frames", "90x60"]
    return lambda *arguments: CliRunner().invoke(cli.app, ["check-model", *arguments, *options])


def test_one_command_writes_page_and_json(run, tmp_path, monkeypatch):
    done = run("tiny-internvl")
    assert done.exit_code == 0, done.output
    first = tmp_path / "acs-model-report-tiny-internvl.json"
    found = json.loads(first.read_text())
    assert [check["passed"] for check in found["checks"]] == [True, True, True, True, True, None]
    assert found["model"]["name"] == "tiny-internvl"
    page = first.with_suffix(".md").read_text()
    for check in found["checks"]:
        assert f"{check['name']}: {'passed' if check['passed'] else 'no verdict'}: {check['said']}" in done.output
    assert "| 0-1000 | " in page and "## Speed" in page
    # Of another model, in a folder: a report of its own, which names no folder of this machine.
    folder = shutil.copytree(ASSETS / "tiny-internvl", tmp_path / "private" / "mine")
    arguments = [str(folder), "--coordinate-frame", "original"]
    monkeypatch.setattr("sys.argv", ["acs-bench", "check-model", *arguments])
    again = run(*arguments)
    assert again.exit_code == 1
    second = tmp_path / "acs-model-report-mine.json"
    text, content = second.with_suffix(".md").read_text(), json.loads(second.read_text())
    assert "load the model with coordinate_frame 0-1000" in text
    assert content["command"] == "acs-bench check-model mine --coordinate-frame original"
    assert content["model"]["coordinate_frame"] == "original"
    assert "private" not in text + json.dumps(content)
    assert json.loads(first.read_text()) == found and first.with_suffix(".md").read_text() == page


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("/home/somebody/models/mine", "mine"),
        ("/home/somebody/models/mine/", "mine"),
        ("--out=../private/out.md", "--out=out.md"),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct"),
        ("640x480,1920x1080", "640x480,1920x1080"),
        ("--max-image-tokens", "--max-image-tokens"),
        ("a red mug", "'a red mug'"),
    ],
)
def test_a_command_is_shown_without_folders(argument, shown):
    assert console.shown_command(["check-model", argument]) == f"acs-bench check-model {shown}"


def test_files_of_the_user_are_kept(run, tmp_path):
    (tmp_path / "mine.json").write_text("{}")
    done = run("tiny-internvl", "--out", "mine.md")
    assert done.exit_code == 2 and "acs did not write it" in re.sub(r"[│\s]+", " ", done.output)
    assert not (tmp_path / "mine.md").exists()


def test_pictures_beyond_the_budget_cost_as_much_as_it_allows(tmp_path, monkeypatch):
    monkeypatch.setattr(console.out, "width", 300)
    file = tmp_path / "out.json"
    options = ["--samples", "2", "--new-tokens", "8", "--device", "cpu", "--json", str(file)]
    sizes = ["--frames", "160x120,320x240,640x480", "--max-image-tokens", "64"]
    done = CliRunner().invoke(cli.app, ["pictures", *sizes, *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    rows = json.loads(file.read_text())["rows"]
    assert [(r["frame"], r["max_image_tokens"]) for r in rows][2:4] == [("640x480", None), ("160x120", 64)]
    assert [r["image_tokens"] for r in rows] == [24, 99, 391, 24, 54, 54]
    assert all(row["seconds"] > 0 and row["reading_ms"] > 0 for row in rows)
    assert rows[0]["seconds"] == rows[3]["seconds"]  # the same prompt is measured once
