import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hub_parts import add_to_cache, use_cache
from PIL import Image
from tiny_parts import some_pairs

from acs_core.artifacts.built import built_for
from acs_core.artifacts.calibration import Calibration
from acs_core.artifacts.heads import HeadFile
from acs_core.artifacts.registry import resolve_model
from acs_core.errors import ModelError, OutputError
from acs_core.grounder import Grounder
from acs_core.lvlm import load_lvlm, open_model
from acs_core.lvlm.picture import PictureOptions
from acs_core.selection.registry import artifact_kinds, make_selector
from training.cli.data import sides_of
from training.collection.job import CollectConfig
from training.collection.store import read_store
from training.errors import DataError
from training.fitting.analyze import AnalysisConfig
from training.fitting.build import BuildConfig, build, describe, name_model
from training.fitting.fit import FitConfig
from training.fitting.push import prepare

pytestmark = pytest.mark.long

NAME = "acs-test/internvl"
CONFIG = BuildConfig(
    CollectConfig(samples=6, max_new_tokens=64),
    FitConfig(epochs=2),
    AnalysisConfig(min_group=1, heads=2, draws=20, high_iou=0.6, low_iou=0.4),
)
PICTURE = PictureOptions(1000, "0-1000")  # neither is the family's default, but the model sees and says the same


@pytest.fixture(scope="module")
def commit(tmp_path_factory):
    """The weights and the processor of tiny-internvl, without any file of acs, as a model of the hub in a cache."""
    with pytest.MonkeyPatch.context() as patch:
        cache = use_cache(patch, tmp_path_factory.mktemp("cache"))
        model = Path(resolve_model("tiny-internvl"))
        yield add_to_cache(
            cache, NAME, model, keep=lambda path: not re.match("heads|box-layers|regressor|joint|calibration", path)
        )


@pytest.fixture(scope="module")
def lvlm(commit):
    return load_lvlm(NAME, device="cpu", **asdict(PICTURE))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Pairs to train on, and to calibrate on."""
    folder = tmp_path_factory.mktemp("pairs")
    return some_pairs(folder / "train", "train", 50), some_pairs(folder / "val", "val", 90)


@pytest.fixture(scope="module")
def built(lvlm, pairs, tmp_path_factory):
    """(folder, result, lines said, a picture) of a small build."""
    folder = tmp_path_factory.mktemp("build")
    train, fresh = pairs
    said: list[str] = []
    out = folder / "files"
    result = build(lvlm, train, fresh, folder / "work", out, "test", CONFIG, said.append)
    return out, result, said, fresh[0]


def test_a_model_gets_all_its_files_and_they_load(lvlm, built):
    out, result, said, _ = built
    heads = HeadFile.load(out / "heads.json")
    assert heads == result.heads and all(len(h) == 2 for h in heads.heads)
    assert make_selector("acs-free", lvlm, heads=out / "heads.json").name == "acs-free"
    assert make_selector("acs-learned", lvlm, regressor=out / "regressor.safetensors").name == "acs-learned"
    assert make_selector("acs-joint", lvlm, joint_model=out / "joint.safetensors").name == "acs-joint"
    box_regressor = out / "regressor-box.safetensors"
    assert make_selector("acs-learned-box", lvlm, box_regressor=box_regressor).name == "acs-learned-box"
    for name in ("acs-free", "acs-learned", "acs-joint", "acs-learned-box"):
        curve = Calibration.load(out / f"calibration-{name}.json")
        assert curve.selector == name and curve.num_samples >= 50 and curve.iou_x
    assert any("Pearson" in line for line in said)


@pytest.mark.parametrize("selector", ["acs-free", "acs-learned", "acs-joint", "acs-learned-box"])
def test_the_folder_is_a_model_to_the_grounder(built, commit, selector):
    out, _, _, pair = built
    grounder = Grounder.from_pretrained(out, selector=selector, device="cpu")
    assert (grounder.lvlm.name, grounder.revision) == (NAME, commit)
    assert grounder.lvlm.picture == PICTURE
    assert grounder.calibration == Calibration.load(out / f"calibration-{selector}.json")
    result = grounder.ground(pair.read(), pair.category)
    assert (result.score_kind.value, result.revision) == ("calibrated_if_present", commit)
    assert all(0 <= d.expected_iou <= 1 for d in result.detections)
    points = grounder.calibration.working_points
    assert grounder.working_point_for(0.5) == (points[0] if points else None)
    assert grounder.min_score_for(0.5) == (points[0].min_score if points else None)


def test_every_step_leaves_its_numbers_and_pictures(built):
    out, result, _, _ = built
    fit, analysis, calibration = (
        json.loads((out / f"{name}.json").read_text()) for name in ("fit", "analysis", "calibration")
    )
    wheres = [(r["where"], r["temperature"]) for r in fit["agreement"]]
    assert ("held-out images", 1.0) in wheres and ("calibration images", 0.5) in wheres
    assert len(fit["history"]) == 2 and fit["held_images"]
    assert sorted(analysis["layer_ranking"]) == list(range(result.heads.identity.num_layers))
    assert set(calibration) >= {"acs-free", "acs-fusion", "acs-joint", "acs-learned", "acs-learned-box"}
    for name in (
        "learning_curves",
        "predicted_iou",
        "learning_curves_box",
        "predicted_iou_box",
        "layer_importance",
        "entropy_by_layer",
        "entropy_gap",
        "attention-good",
        "attention-bad",
        "reliability-acs-free",
        "reliability-acs-fusion",
        "reliability-acs-joint",
        "reliability-acs-learned",
    ):
        picture = np.asarray(Image.open(out / "figures" / f"{name}.png").convert("L"))
        assert picture.std() > 5, f"{name} is blank"


def test_the_model_card_says_how_good_it_is(built):
    out, result, _, _ = built
    card = (out / "README.md").read_text()
    joint = json.loads((out / "fit.json").read_text())["joint"]["agreement"][0]
    assert f"| {joint['mae']:.3f} | {joint['pearson']:.3f} |" in card
    assert "even attention, own box" in card
    for fact in (f"# ACS files for {NAME}", f"{result.fitted.held.pearson:.3f}", "expected calibration error"):
        assert fact in card


def test_every_file_names_the_commit_of_the_model(built, commit):
    """As the loader found it in the cache."""
    out, _, _, _ = built
    identities = [HeadFile.load(out / "heads.json").identity]
    identities += [kind.load(out / kind.file_name, None).identity for kind in artifact_kinds()]
    identities += [Calibration.load(file).identity for file in out.glob("calibration-*.json")]
    assert len(identities) >= 8
    assert {(i.model, i.revision, i.hidden_size) for i in identities} == {(NAME, commit, 192)}
    assert (built_for(out).model, built_for(out).revision) == (NAME, commit)
    assert f"revision {commit}, weights {commit}" in (out / "README.md").read_text()
    for name in ("train", "calibration"):
        manifest = read_store(out.parent / "work" / name).manifest["model"]
        assert (manifest["revision"], manifest["weights"]) == (commit, commit)


def test_what_is_built_can_be_pushed(built, commit):
    out, _, _, _ = built
    upload = prepare(out, "acs-test/files", lambda name, revision: open_model(name, revision=revision))
    made = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert set(upload.names) == {name for name in made if not name.startswith(".")}
    pointer = json.loads(upload.pointer)
    assert (pointer["revision"], pointer["max_image_tokens"], pointer["coordinate_frame"]) == (commit, 1000, "0-1000")


def test_the_own_folder_of_a_model_records_no_options_for_pictures(lvlm, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "internvl"}')
    with pytest.raises(DataError, match=r"the model's own folder.*name another folder, whose acs\.json records them"):
        build(lvlm, [], [], tmp_path / "work", tmp_path, "test")
    assert not (tmp_path / "work").exists()


def test_a_model_card_without_a_place_is_said_before_the_work(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "internvl"}')
    for name in ("README.md", "README-acs.md"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match=r"holds README\.md and README-acs\.md"):
        build(None, [], [], tmp_path / "work", tmp_path, "test")
    assert not (tmp_path / "work").exists()


def test_a_folder_that_holds_a_model_is_not_pointed_elsewhere(tmp_path):
    name_model(tmp_path, "some/model", "abc", PictureOptions())
    assert (built_for(tmp_path).model, built_for(tmp_path).revision) == ("some/model", "abc")
    (tmp_path / "config.json").write_text("{}")
    assert built_for(tmp_path) is None


@pytest.mark.parametrize("content", ["", "[]", '{"schema_version": 1}', '{"schema_version": 1, "model": 3}'])
def test_a_damaged_pointer_is_named(tmp_path, content):
    (tmp_path / "acs.json").write_text(content)
    with pytest.raises(ModelError, match=r"acs\.json"):
        built_for(tmp_path)


@pytest.mark.parametrize(
    ("files", "train", "images"),
    [
        (("annotations/instances_train2017.json",), "annotations/instances_train2017.json", "train2017"),
        (("train/instances.json", "val/instances.json"), "train/instances.json", "train/images"),
        (("zhiyuan_objv2_train.json",), "zhiyuan_objv2_train.json", "train"),
    ],
)
def test_build_reads_the_training_side_of_known_layouts(tmp_path, files, train, images):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    source, calibration = sides_of(tmp_path, (None, None), (None, None))
    assert (source.file, source.images) == (tmp_path / train, tmp_path / images) and calibration is None


def test_too_few_boxes_are_said_before_anything_is_fitted(built, pairs, lvlm, tmp_path, monkeypatch):
    """The collections of `built` are resumed; without good and low boxes there is a folder without a head file."""
    out, _, _, _ = built
    train, fresh = pairs
    files = shutil.copytree(out, tmp_path / "files")
    said = []
    config = replace(CONFIG, analysis=replace(CONFIG.analysis, min_group=10**6))
    result = build(lvlm, train, fresh, out.parent / "work", files, "test", config, said.append)
    warned = next(i for i, line in enumerate(said) if line.startswith("warning: will be missing: heads.json"))
    assert "1000000 good" in said[warned] and not any("Pearson" in line for line in said[: warned + 1])
    assert said[-1].startswith(f"missing in {files}: heads.json") and result.heads is result.analysis is None
    calibrations = {file.stem.removeprefix("calibration-") for file in files.glob("calibration-acs-*.json")}
    assert calibrations == {"acs-learned", "acs-learned-box", "acs-joint", "acs-fusion-box"}
    assert not (files / "heads.json").exists() and "There is no head file" in (files / "README.md").read_text()
    assert Grounder.from_pretrained(files, selector="acs-joint", device="cpu").calibration is not None
    # Too few answers are an error, and before the fit, too.
    monkeypatch.setattr("training.fitting.build.STEPS", ())
    for few, problem in (
        (fresh[:49], "49 calibration questions are too few"),
        (fresh, "calibration questions got a box"),
    ):
        monkeypatch.setattr("training.fitting.build.MIN_CHOICES", 50 if few is not fresh else len(fresh))
        with pytest.raises(DataError, match=problem):
            build(lvlm, train, few, out.parent / "work", tmp_path / "few", "test", CONFIG, said.append)


def test_the_metadata_name_data_and_thresholds():
    text = describe(BuildConfig(), "50 pairs of a.json", "20 pairs of b.json")
    for fact in (
        "50 pairs of a.json",
        "20 pairs of b.json",
        "tau=1;",
        "N=10",
        "(0, 0.3]",
        "above 0.7",
        "tau=0.5",
        "3 heads",
    ):
        assert fact in text
