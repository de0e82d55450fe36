"""Every option that names a place to write: files of the user there are never changed, whatever command it is given to.

The table ``WRITES`` is held against the options that the commands have, so that a new one cannot be left out.
"""

import json
import re
import shutil
import typing
from pathlib import Path

import numpy as np
import pytest
import typer
from command_parts import argparse_commands, console_scripts, typer_commands
from eval_parts import evaluation
from made_up_parts import made_up
from PIL import Image
from typer.testing import CliRunner

import acs_core
import acs_ros.stress.bench_cli
import acs_ros.stress.load_cli
import acs_ros.stress.soak_cli
import fuzz.cli
import training.cli.main
from acs_core.evaluation.storage import save
from acs_core.output_marker import MARKER
from acs_ros.bags.bags import DEMO_BAG
from training.cli.config import configuration_of
from training.world.synth import write_coco

APPS = {
    "acs-train": training.cli.main.app,
    "acs-bench": acs_ros.stress.bench_cli.app,
    "acs-soak": acs_ros.stress.soak_cli.app,
    "acs-load": acs_ros.stress.load_cli.app,
    "fuzz": fuzz.cli.app,
}
PARSERS = argparse_commands()
NO_OPTIONS = {"acs_ros.main"}  # takes ROS arguments only
# Places that are only read: an option of a path is here or in WRITES.
READS = {
    *("--data", "--images", "--store", "--evaluate", "--files", "--collected", "--heads", "--regressor"),
    "--joint-model",
    *("--calibration", "--coco", "--train", "--train-images", "--calibration-images", "--emitting", "--consuming"),
    *(
        "--config",
        "--font",
        "--fluent",
        "--params",
        "--params-file",
        "--image",
        "--bag",
        "--report",
        "--compare",
        "evaluations",
    ),
    *("image", "bag", "first", "second", "instances", "--picture", "--backgrounds", "--phrases"),
}
FOLDER, FILE = "folder", "file"
# (command, option): what stands there, and the other words of a run that would write. {...} are the made inputs.
WRITES = {
    ("acs-train synth", "--out"): (FOLDER, "--split val --images 1"),
    ("acs-train synth", "--preview"): (FILE, "--split val --images 1 --out {new}"),
    ("acs-train sprites", "--out"): (FOLDER, "--font {photo}"),
    ("acs-train tiny", "--out"): (FOLDER, "--scale 0.0001"),
    ("acs-train tiny", "--pictures"): (FOLDER, "--scale 0.0001 --out {new}"),
    ("acs-train tiny-eval", "--work"): (FOLDER, "--cases 1"),
    ("acs-train tiny-eval", "--pictures"): (FOLDER, "--cases 1 --work {new}"),
    ("acs-train tiny-eval", "--json"): (FILE, "--cases 1 --work {new}"),
    ("acs-train collect", "--out"): (FOLDER, "--model tiny-internvl --data {world} --limit 2 --samples 1"),
    ("acs-train fit", "--out"): (FOLDER, "--store {store} --work {new} --epochs 1"),
    ("acs-train fit", "--work"): (FOLDER, "--store {store} --out {new} --epochs 1"),
    ("acs-train fit", "--logs"): (FOLDER, "--store {store} --work {new} --out {new} --logger csv"),
    ("acs-train analyze", "--out"): (FOLDER, "--store {store}"),
    ("acs-train calibrate", "--out"): (FOLDER, "--store {store}"),
    ("acs-train build", "--out"): (FOLDER, "--model tiny-internvl --train {world} --calibration {other} --work {new}"),
    ("acs-train build", "--work"): (FOLDER, "--model tiny-internvl --train {world} --calibration {other} --out {new}"),
    ("acs-train evaluate", "--out"): (FOLDER, "--model tiny-internvl --data {world} --work {new} --small 1 --large 0"),
    ("acs-train evaluate", "--work"): (FOLDER, "--model tiny-internvl --data {world} --small 1 --large 0"),
    ("acs-train evaluate", "--json"): (FILE, "--model tiny-internvl --data {world} --work {new} --small 1 --large 0"),
    ("acs-train push", "--json"): (FILE, "--files {fitted} --to owner/files --plan"),
    ("acs-train check-store", "--json"): (FILE, "--model tiny-internvl --data {world} --pairs 2"),
    ("acs-train reading-speed", "--json"): (FILE, "--pairs 10 --batch 2"),
    ("acs-train ablate", "--json"): (FILE, "--heads {heads} --emitting {store} {store}"),
    ("acs-train report", "--out"): (FILE, "{evaluation}"),
    ("acs-train report", "--tables"): (FOLDER, "{evaluation}"),
    ("acs-train report", "--figures"): (FOLDER, "{evaluation} --examples 1"),
    ("acs-train attention", "--out"): (FOLDER, "--model tiny-internvl --picture {photo} --phrase key"),
    ("acs-train architecture", "--tables"): (FOLDER, ""),
    ("acs-train report", "--json"): (FILE, "{evaluation}"),
    ("acs-ground", "--out"): (FILE, "{photo} key"),
    ("acs-ground", "--json"): (FILE, "{photo} key"),
    ("acs-replay", "--out"): (FOLDER, "{bag} --frames 1 --samples 1"),
    ("acs-replay", "--json"): (FILE, "{bag} --frames 1 --samples 1 --out {new}"),
    ("acs-replay", "--extract"): (FOLDER, "{bag} --frames 1"),
    ("make_bag", "bag"): (FOLDER, "{world} --replace"),
    ("track_check", "--json"): (FILE, "{bag} --frames 1"),
    ("python -m fuzz.node", "--log"): (FILE, "--cases 1"),
    ("acs-soak", "--out"): (FOLDER, "--minutes 0"),
    ("acs-load", "--log"): (FILE, "--instant"),
    ("acs-load", "--json"): (FILE, "--instant"),
    ("acs-bench sweep", "--plot"): (FILE, ""),
    ("acs-bench check-device", "--json"): (FILE, ""),
    ("acs-bench check-model", "--out"): (FILE, "tiny-internvl"),
    ("acs-bench check-model", "--json"): (FILE, "tiny-internvl --out {new}.md"),
    ("acs-bench pictures", "--json"): (FILE, "--frames 100x100"),
    ("acs-bench forwards", "--json"): (FILE, ""),
    ("acs-bench load", "--json"): (FILE, ""),
    ("acs-bench startup", "--json"): (FILE, ""),
    ("acs-bench whole", "--json"): (FILE, ""),
    ("acs-bench gpu-check", "--out"): (FOLDER, ""),
    ("acs-bench busy", "--json"): (FILE, ""),
    ("acs-bench ros", "--json"): (FILE, ""),
    ("acs-bench selector", "--json"): (FILE, ""),
    ("acs-bench limits", "--json"): (FILE, ""),
    ("acs-bench phrases", "--json"): (FILE, ""),
    ("acs-bench quantization", "--json"): (FILE, "--image {photo} --phrase key"),
    ("acs-bench sweep", "--json"): (FILE, "--plot {new}.png"),
    ("acs-bench", "--json"): (FILE, ""),
    ("fuzz", "--json"): (FILE, "--cases 1 --target parser"),
}


def options_of(app):
    """(command, option) of every option of an app of typer that takes a path."""
    groups = [group.typer_instance for group in app.registered_groups]
    commands = [*app.registered_commands, *(c for group in groups for c in group.registered_commands)]
    several = len(commands) > 1
    for command in commands:
        name = command.name or command.callback.__name__.replace("_", "-")
        for argument, hint in typing.get_type_hints(command.callback, include_extras=True).items():
            if "Path" not in str(typing.get_args(hint)[:1]):
                continue
            told = typing.get_args(hint)[1:]
            # typer keeps the first name of an option in `default`
            given = [d for info in told for d in (info.default, *(info.param_decls or ())) if str(d).startswith("--")]
            positional = any(isinstance(info, typer.models.ArgumentInfo) for info in told)
            option = argument if positional else next(iter(given), f"--{argument.replace('_', '-')}")
            yield (f" {name}" if several else ""), option


def test_every_option_with_a_path_is_known():
    found = {(f"{app}{name}", option) for app in APPS for name, option in options_of(APPS[app])}
    alone = typing.get_type_hints(APPS["acs-bench"].registered_callback.callback)  # acs-bench without a command
    found |= {("acs-bench", "--json")} if "json_file" in alone else set()
    for name, (_, make) in PARSERS.items():
        for action in make()._actions:
            if action.type is Path:
                found.add((name, next(iter(action.option_strings), action.dest)))
    written = {one for one in found if one in WRITES or one[1] not in READS}
    assert written == set(WRITES)


def test_every_command_is_known():
    apps = {app.registered_commands[0].callback.__module__ for app in APPS.values()}
    apps |= {"acs_core.bench.cli", "acs_ros.stress.bench_cli", "training.cli.main"}  # commands of several modules
    assert typer_commands() <= apps
    started = set(console_scripts().values())
    assert len(started) > 10 and started - NO_OPTIONS <= apps | {main.__module__ for main, _ in PARSERS.values()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The inputs that the runs name."""
    folder = tmp_path_factory.mktemp("inputs")
    made_up(folder / "store")
    places = ["--store", str(folder / "store"), "--out", str(folder / "fitted")]
    for step in (
        ["fit", *places, "--work", str(folder / "work"), "--epochs", "1", "--share", "0.5"],
        ["analyze", *places],
    ):
        done = CliRunner().invoke(APPS["acs-train"], step)
        assert done.exit_code == 0, done.output
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(folder / "photo.png")
    save(evaluation(), folder / "evaluation.json.gz")
    return {
        "world": write_coco(folder / "world", "val", 12),
        "other": write_coco(folder / "other", "test", 12),
        "store": folder / "store",
        "fitted": folder / "fitted",
        "photo": folder / "photo.png",
        "evaluation": folder / "evaluation.json.gz",
        "heads": Path(acs_core.__file__).parent / "assets" / "tiny-internvl" / "heads.json",
        "bag": DEMO_BAG,
    }


NAMES = (  # of everything that a command writes into a folder, and of a user's own
    *("holiday.jpg", "images/holiday.jpg", "images/val_000000.jpg", "instances.json", "noto/key.png", "last.pt"),
    *(
        "tiny-internvl/model.safetensors",
        "manifest.json.bak",
        "regressor.safetensors",
        "regressor-box.safetensors",
        "joint.safetensors",
        "heads.json",
    ),
    *("fit.json", "analysis.json", "calibration.json", "calibration-acs-free.json", "README.md", "figures/mine.png"),
    *("evaluation.json", "evaluation.json.gz", "questions.json", "tables.json", "accuracy.csv", "tables/accuracy.csv"),
    *("figure-04-entropy.pdf", "figure-03-critical.png", "coco/small-instances.json", "accuracy.tex"),
    *("report.html", "frames/1.jpg", "bag/metadata.yaml", "answers-1.jsonl", "node.log", "result_bag/metadata.yaml"),
    *("contact_sheet.png", "results.json", "soak.jsonl", "soak.json", "soak.png", "last.ckpt", "best.ckpt"),
    *("train/holiday.jpg", "calibration/holiday.jpg", "fit/holiday.jpg", "test/holiday.jpg", "test/images/mine.jpg"),
    *(f"{configuration_of(command).command}.run.yaml" for command in training.cli.main.COMMANDS),
    *("gpu_check.md", "gpu_check.json"),
    *("part_00000/zarr.json", "collections/holiday.jpg", "answers/holiday.jpg", "log.jsonl", "pictures/mine.jpg"),
)

REFUSED = re.compile(r"acs did not (make|write) it|not written by acs|instances.json exists already")
FIT_FILES = ("regressor.safetensors", "regressor-box.safetensors", "joint.safetensors", "fit.json")
# What a command reads in its output folder, of the command before it.
MADE_BEFORE = {"acs-train analyze": FIT_FILES, "acs-train calibrate": (*FIT_FILES, "heads.json")}


def filled(folder, command, made):
    """A folder of the user, with files of every name that a command would write."""
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"mine: {name}")
    for name in MADE_BEFORE.get(command, ()):
        shutil.copy(made["fitted"] / name, folder)
    return folder


def mark(folder, command):
    """Mark a folder as one of ``command`` that wrote none of its files."""
    data = {"schema_version": 1, "written_by": command, "pending": [], "files": {}}
    (folder / MARKER).write_text(json.dumps(data))


def snapshot(folder):
    return {str(f.relative_to(folder)): f.read_bytes() if f.is_file() else None for f in sorted(folder.rglob("*"))}


def run(command, words):
    """Exit code and output of a run in this process."""
    if command not in PARSERS:
        name, *sub = command.split()
        result = CliRunner().invoke(APPS[name], [*sub, *words], env={"COLUMNS": "1000"})  # paths are not broken
        code = result.exit_code if result.exception is None or isinstance(result.exception, SystemExit) else 1
        return code, result.output + str(result.exception or "")
    try:
        return PARSERS[command][0](words), ""
    except SystemExit as ended:
        return ended.code, ""


# Who marks a folder, where it is not the command alone.
MARKERS = {
    ("acs-train fit", "--work"): "acs-train fit --work",
    ("acs-train fit", "--logs"): "acs-train fit --logs",
    ("acs-train build", "--work"): "acs-train build --work",
    ("acs-train evaluate", "--work"): "acs-train evaluate --work",
    ("acs-replay", "--extract"): "acs-replay --extract",
}
# Commands that put nothing where these files of the user are, in a folder of theirs.
BESIDE = {("acs-train evaluate", "--work"), ("acs-train fit", "--logs")}
# Writes into folders of names of its own, and trains a model then.
SUBFOLDERS = {("acs-train tiny", "--pictures")}
# What a command that goes on from its own files says of others in their place.
NOT_OURS = re.compile(r"is no checkpoint|is damaged|delete it")
CASES = [
    (*one, marked)
    for marked in (False, True)
    for one in WRITES
    if not marked or (WRITES[one][0] == FOLDER and one not in SUBFOLDERS)
]


@pytest.mark.parametrize(("command", "option", "marked"), CASES)
def test_files_of_the_user_stay(command, option, marked, made, tmp_path, monkeypatch, capsys):
    kind, more = WRITES[command, option]
    words = [word.format(new=tmp_path / "new", **made) for word in more.split()]
    monkeypatch.chdir(tmp_path)
    if kind == FOLDER:
        target = filled(tmp_path / "mine", command, made)
    else:
        target = tmp_path / f"mine{'.json' if option == '--json' else '.png'}"
        target.write_text("mine")
    before = snapshot(tmp_path)
    if marked:
        mark(target, MARKERS.get((command, option), command))
    code, said = run(command, [*words, *([option] if option.startswith("--") else []), str(target)])
    said += "".join(capsys.readouterr())
    after = snapshot(tmp_path)
    assert {name: after.get(name) for name in before} == before
    if marked and (command, option) in BESIDE:
        return
    assert code in (1, 2), said
    shown = " ".join(said.split())
    assert "mine" in shown and (REFUSED.search(shown) or (marked and NOT_OURS.search(shown))), shown
    if kind == FOLDER and not marked:
        here = {name.removeprefix("mine/") for name in before if name.startswith("mine/")}
        assert snapshot(target).keys() == here


TRAIN = "--model tiny-internvl --train {world} --calibration {other}"


@pytest.mark.parametrize(
    ("command", "words", "output", "marker"),
    [
        ("acs-train fit", "--store {work}/train --work {work} --out {new}", "", "acs-train fit --work"),
        ("acs-train fit", "--store {work}/train --work {work}/train --out {new}", "train", "acs-train fit --work"),
        ("acs-train fit", "--store {work}/train --out {work}/train", "train", "acs-train fit"),
        ("acs-train calibrate", "--store {work}/train --out {work}", "", "acs-train fit"),
        (
            "acs-train collect",
            "--model tiny-internvl --data {work}/world/instances.json --out {work}/world --limit 2",
            "world",
            "acs-train collect",
        ),
        ("acs-train build", TRAIN + " --work {new} --out {work}/world", "world", "acs-train build"),
        (
            "acs-train evaluate",
            "--model tiny-internvl --data {work}/world/instances.json --work {work} --small 1",
            "",
            "acs-train evaluate --work",
        ),
        ("acs-train report", "{work}/evaluation.json.gz --tables {work}", "", "acs-train report"),
        ("acs-replay", "{work}/bag --out {work}", "", "acs-replay"),
        ("acs-replay", "{work}/bag --out {work}/bag", "bag", "acs-replay"),
        ("acs-replay", "{work}/bag --extract {work}", "", "acs-replay --extract"),
        ("acs-replay", "{work}/bag --live --start-node --out {work}", "", "acs-replay"),
        ("acs-replay", "{work}/bag --live --start-node --out {work}", "", "grounding_demo"),
    ],
)
@pytest.mark.parametrize("marked", [False, True])
def test_what_is_read_is_not_written_over(command, words, output, marker, marked, made, tmp_path, monkeypatch, capsys):
    work = tmp_path / "work"
    shutil.copytree(made["world"].parent, work / "world", ignore=shutil.ignore_patterns(".acs-*"))
    shutil.copytree(made["store"], work / "train")
    shutil.copytree(DEMO_BAG, work / "bag")
    shutil.copy(made["evaluation"], work)
    if marked:  # as if this command had taken the folder before the inputs came into it
        mark(work / output, marker)
    before = snapshot(work)
    monkeypatch.chdir(work)
    inputs = {**made, "work": work, "new": tmp_path / "new"}
    if "{world}" in words:
        inputs["world"] = work / "world" / "instances.json"
    code, said = run(command, [word.format(**inputs) for word in words.split()])
    said += "".join(capsys.readouterr())
    assert code in (1, 2), said
    assert "Traceback" not in said
    assert snapshot(work) == before
