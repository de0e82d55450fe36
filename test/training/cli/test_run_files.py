"""Run files: a run is repeated from one alone, and one goes with the files that it describes."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from eval_parts import evaluation
from made_up_parts import made_up
from tiny_parts import small_arch
from typer.testing import CliRunner

from acs_core.artifacts.heads import HeadFile
from acs_core.artifacts.identity import ModelIdentity
from acs_core.evaluation.storage import save
from acs_core.lvlm import open_model
from acs_core.lvlm.picture import PictureOptions
from training.cli.config import configuration_of
from training.cli.main import COMMANDS, app
from training.collection.collect import CollectReport
from training.collection.store import read_responses, read_store
from training.errors import DataError
from training.fitting.artifacts import files_folder
from training.fitting.build import STEPS, name_model
from training.settings import RUN_FILE
from training.tiny.arches import ARCHES
from training.tiny.recipe import TrainConfig, standard_phases
from training.world.synth import write_coco

pytestmark = pytest.mark.long

QUICK = {"steps": 1, "guided_steps": 1, "batch": 2, "pictures": 8, "objects": (3, 5)}
SHORT = TrainConfig(
    tuple(replace(phase, **QUICK) for phase in standard_phases([1] * 5)),
    validation_pictures=12, validation_cases=2, checkpoint_every=10, evaluate_every=100,
)  # fmt: skip
# Of every command: the words of a quick run, and the options that name what it makes, {} a new place for each run.
RUNS = {
    "synth": ("--split val --images 2", "--out {}/out"),
    "sprites": ("--font {font}", "--out {}/out"),
    "tiny": ("--threads 1 --arch internvl --first-phase A", "--out {}/out"),
    "tiny-eval": ("--cases 2 --temperature 0.7", "--work {}/work --json {}/out/table.json"),
    "collect": (
        "--model tiny-internvl --data {world} --limit 2 --samples 1 --seed 3 --top-p 0.8 --top-k 7",
        "--out {}/out",
    ),
    "fit": (
        "--store {store} --epochs 1 --share 0.5 --seed 4 --input cells --learning-rate 1e-3 --batch 16 --patience 2",
        "--work {}/work --out {}/out",
    ),
    "analyze": ("--store {store} --heads 2 --all-layers --draws 10", "--out {}/out"),
    "calibrate": ("--store {store} --device cpu", "--out {}/out"),
    "build": (
        "--model tiny-internvl --train {world} --calibration {other} --heads 2 --seed 5",
        "--work {}/work --out {}/out",
    ),
    "evaluate": (
        "--model tiny-internvl --data {world} --small 2 --several 0 --large 0 --samples 2 --most 2 --temperature 0.5",
        "--work {}/work --out {}/out",
    ),
    "push": ("--files {pushed} --to owner/files --plan", "--json {}/out/found.json"),
    "reading-speed": ("--pairs 10 --batch 2 --workers 1", "--json {}/out/found.json"),
    "check-store": ("--store {store}", "--json {}/out/found.json"),
    "ablate": (
        "--heads {fitted}/heads.json --emitting {store} {store} --count 1 --count 2",
        "--json {}/out/found.json",
    ),
    "attention": (
        "--model tiny-internvl --picture {sample} --phrase key --samples 4 --layer 2 --seed 1",
        "--out {}/out",
    ),
    "architecture": ("--layers 2 --heads 3 --map-side 8", "--tables {}/out"),
    "report": ("{evaluation} --draws 100 --seed 2 --title a:b", "--out {}/page.html --tables {}/out"),
}
MADE_BEFORE = ("analyze", "calibrate")  # they read what is in their output folder


def built_for_a_shipped_model(folder):
    """A folder as `acs-train build` leaves it, with as few files as possible."""
    folder.mkdir()
    HeadFile.from_layers(ModelIdentity.of(open_model("tiny-internvl")), [1]).save(folder / "heads.json")
    name_model(folder, "tiny-internvl", None, PictureOptions())
    (folder / "README.md").write_text("# Files\n")
    return folder


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    made_up(folder / "store")
    places = ["--store", str(folder / "store"), "--out", str(folder / "fitted")]
    for step in ("fit --work WORK --epochs 1 --share 0.5", "analyze"):
        name, *words = step.replace("WORK", str(folder / "work")).split()
        done = CliRunner().invoke(app, [name, *places, *words])
        assert done.exit_code == 0, done.output
    save(evaluation(20), folder / "evaluation.json.gz")
    (folder / "font.ttf").touch()
    return {
        "pushed": built_for_a_shipped_model(folder / "pushed"),
        "world": write_coco(folder / "world", "val", 12),
        "other": write_coco(folder / "other", "test", 12),
        "store": folder / "store",
        "fitted": folder / "fitted",
        "font": folder / "font.ttf",
        "evaluation": folder / "evaluation.json.gz",
        "sample": Path(__file__).parents[3] / "docs" / "sample.png",
    }


@pytest.fixture
def quick(monkeypatch):
    """Makes the slow commands quick: a small model, drawings of one pixel, and a build that writes its arguments."""

    def draw(font, folder):
        (folder / "noto").mkdir()
        (folder / "noto" / "key.png").write_bytes(b"drawn with " + font.name.encode())
        return 1

    def build(lvlm, pairs, fresh, work, out, *arguments):
        with files_folder(out, "acs-train build", []) as folder, folder.stage() as staged:
            told = [p.key for p in pairs], [p.key for p in fresh], arguments[:2], arguments[4], *arguments[6:]
            (staged / "arguments.txt").write_text(repr(told))

    monkeypatch.setattr("training.plotting.DPI", 30)
    monkeypatch.setattr("training.world.sprites.make_noto_sprites", draw)
    monkeypatch.setattr("training.fitting.build.build", build)
    small = replace(small_arch("internvl", image_size=360), recipe=SHORT)
    monkeypatch.setitem(ARCHES, "internvl", lambda: small)


def results(folder):
    """The content of what a run made, by its name below ``folder``, without times."""
    found = {}
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        name = str(file.relative_to(folder))
        if file.name.startswith(".acs-") or name.endswith((RUN_FILE, "log.jsonl", "last.pt", ".gz")):
            continue
        text = file.read_bytes()
        found[name] = re.sub(rb'"(answer_ms|created|[^"]*(a second|hours|against)[^"]*)": [^,}\n]+', b"", text)
    return found


def test_every_command_has_a_run_that_is_repeated():
    assert {configuration_of(function).command for function in COMMANDS} == set(RUNS)
    names = {command.name for command in app.registered_commands}
    assert names == set(RUNS), "a command is registered that takes no configuration"


@pytest.mark.parametrize("command", RUNS)
def test_a_run_is_repeated_from_its_run_file_alone(command, inputs, quick, tmp_path):
    words, places = RUNS[command]
    config, made = [], []
    for name in ("first", "again"):
        place = tmp_path / name
        (place / "out").mkdir(parents=True)
        if command in MADE_BEFORE:
            shutil.copytree(inputs["fitted"], place / "out", dirs_exist_ok=True)
        given = config or [word.format(**inputs) for word in words.split()]
        done = CliRunner().invoke(app, [command, *given, *(word.format(place) for word in places.split())])
        assert done.exit_code == 0, (done.output, done.exception)
        own = "out/table.json" if command == "tiny-eval" else "out/found.json" if "found.json" in places else ""
        run_file = place / (f"{own}{RUN_FILE}" if own else f"out/{command}{RUN_FILE}")
        assert list(place.rglob(run_file.name)) == [run_file]
        config = ["--config", str(run_file)]
        written = run_file.read_text().split("\n", 1)[1]  # without the digest
        made.append((results(place / "out"), written.replace(str(place), "PLACE")))
    (first, first_run), (again, again_run) = made
    assert first and first == again
    assert first_run == again_run


@pytest.fixture
def steps_that_copy(inputs, monkeypatch):
    """Makes the steps of `build` copy the files of the inputs; a step whose name is put into this set fails."""
    failing = set()

    def copying(step):
        def run(job, staged):
            if step.name in failing:
                raise DataError(f"{step.name} fails")
            for file in (file for pattern in step.files for file in inputs["fitted"].glob(pattern)):
                (staged / file.relative_to(inputs["fitted"])).parent.mkdir(exist_ok=True)
                shutil.copy(file, staged / file.relative_to(inputs["fitted"]))
            return None, None

        return replace(step, run=run)

    job = "training.fitting.build"
    monkeypatch.setattr(f"{job}.STEPS", tuple(copying(step) for step in STEPS))
    monkeypatch.setattr(f"{job}.collect", lambda *_: CollectReport(0, 0, ()))
    monkeypatch.setattr(f"{job}.read_store", lambda _: read_store(inputs["store"]))
    monkeypatch.setattr(f"{job}.read_responses", lambda _: read_responses(inputs["store"]))
    monkeypatch.setattr(f"{job}.BuildResult", lambda *_: None)
    monkeypatch.setattr(f"{job}.check_enough", lambda *_: {})
    return failing


@pytest.mark.parametrize(("fails", "left"), [("", [f"build{RUN_FILE}"]), ("analyze", [])])
def test_build_removes_the_run_files_of_what_it_replaces(inputs, steps_that_copy, tmp_path, fails, left):
    out = shutil.copytree(inputs["fitted"], tmp_path / "files")
    assert len(list(out.glob(f"*{RUN_FILE}"))) == 2
    words = ["build", "--model", "tiny-internvl", "--train", inputs["world"], "--calibration", inputs["other"]]
    words += ["--work", tmp_path / "work", "--out", out]
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, (done.output, done.exception)
    assert [file.name for file in out.glob(f"*{RUN_FILE}")] == [f"build{RUN_FILE}"]
    # Again: if a step after the fit fails, the regressor is a new one, which the run file does not describe.
    steps_that_copy.update({fails} - {""})
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == (1 if fails else 0) and (not fails or "analyze fails" in str(done.exception))
    assert [file.name for file in out.glob(f"*{RUN_FILE}")] == left


@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize("command", ["fit", "analyze", "calibrate"])
def test_a_step_removes_the_run_file_of_build_unless_it_was_edited(inputs, tmp_path, command, edited):
    out = shutil.copytree(inputs["fitted"], tmp_path / "out")
    file = out / f"build{RUN_FILE}"
    with files_folder(out, "acs-train build", []) as folder, folder.stage() as staged:
        (staged / file.name).write_text("command: build\n")
    if edited:
        file.write_text("mine")
    words = [word.format(tmp_path, **inputs) for word in " ".join(RUNS[command]).split()]
    done = CliRunner().invoke(app, [command, *words])
    assert done.exit_code == 0, (done.output, done.exception)
    assert file.exists() == edited and (out / f"{command}{RUN_FILE}").exists()
