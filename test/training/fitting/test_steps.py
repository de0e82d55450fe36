"""The steps as their commands run them: from files to files."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_up_parts import made_up

from acs_core.artifacts.calibration import Calibration
from acs_core.artifacts.heads import HeadFile
from acs_core.artifacts.identity import ModelIdentity
from acs_core.artifacts.registry import calibration_file
from acs_core.selection.joint_model import JOINT_MODEL
from acs_core.selection.regressor import AttentionIoURegressor
from training.collection.offline_selection import calls
from training.errors import DataError
from training.fitting.analyze import AnalysisConfig
from training.fitting.artifacts import made_selectors, read_artifact, read_regressor
from training.fitting.fit import FitConfig
from training.fitting.steps import analyze_step, calibrate_step, fit_step


def test_each_kind_and_temperature_is_judged(files):
    rows = json.loads((files[0] / "fit.json").read_text())["agreement"]
    assert next((r["where"], r["temperature"], r["kind"]) for r in rows) == ("held-out images", 1.0, "all")
    assert ("fresh", 0.5, "all") in [(r["where"], r["temperature"], r["kind"]) for r in rows]


def test_the_joint_quality_is_judged_beside_the_regressor(files, collection):
    joint = json.loads((files[0] / "fit.json").read_text())["joint"]["agreement"]
    told = [(r["where"], r["temperature"], r["kind"]) for r in joint]
    assert told[0] == ("held-out images", 1.0, "all") and ("fresh", 0.5, "all") in told
    assert ("held-out images, 3 responses", 1.0, "all") in told
    assert joint[0]["count"] == len(files[1].validation)
    assert read_artifact(files[0], JOINT_MODEL, collection).made_by == "test"


def test_images_that_were_trained_on_judge_nothing(collection, files, tmp_path):
    rows = []
    fit_step(collection, tmp_path, FitConfig(epochs=1), "", {"again": collection}, say=rows.append)
    held = next(r for r in rows if r.startswith("held-out"))
    again = next(r for r in rows if r.startswith("again"))
    assert held.split(":")[1] == again.split(":")[1], "only the held-out images are left of the same collection"


def test_heads_and_calibrations_follow_from_the_files(collection, fresh_collection, files, tmp_path):
    fitted = files[1]
    out = shutil.copytree(files[0], tmp_path / "files")
    regressor, _ = read_regressor(out, collection)
    said = []
    analyze_step(
        collection, regressor, fitted.validation, out, AnalysisConfig(min_group=5, draws=20), "test", say=said.append
    )
    assert HeadFile.load(out / "heads.json").made_by == "test"
    assert any("of 20 draws" in line for line in said)
    assert "table 1 of the paper has no layers for made-up: no reading of its layer numbers to compare" in said
    assert json.loads((out / "analysis.json").read_text())["table_1"] == {"readings": [], "supported": None}
    selectors = made_selectors(out, fresh_collection)
    ours = ["acs-free", "acs-learned", "acs-fusion", "acs-joint", "acs-learned-box"]
    agreeing = ["consensus", "medoid", "largest-cluster"]
    assert [s.name for s in selectors] == [*ours, *agreeing]
    told = calibrate_step(fresh_collection, selectors, out, "test", said.append)
    assert set(told) == {*ours, *agreeing}

    again = {"acs-fusion": [replace(call, looked_again=True) for call in calls(fresh_collection, False)]}
    told = calibrate_step(fresh_collection, selectors, out, "test", said.append, again)
    assert set(told) == {*ours, *agreeing, "acs-fusion, second look"}
    assert set(json.loads((out / "calibration.json").read_text())) == set(told)
    one, second = (Calibration.load(out / calibration_file("acs-fusion", looks)) for looks in (False, True))
    assert second.second_look and second.made_by == "test, with a second look"
    assert replace(second, second_look=False, made_by="test") == one, "the same answers"
    assert (out / "figures" / "reliability-acs-fusion-second-look.png").is_file()


def test_another_models_collection_judges_nothing(collection, strange, tmp_path):
    with pytest.raises(DataError, match="both must be of one model"):
        fit_step(collection, tmp_path, FitConfig(epochs=1), "", {"x": strange}, say=lambda text: None)


@pytest.mark.parametrize(("name", "first"), [("table-1-from-0", 0), ("table-1-from-1", 1)])
def test_an_analysis_of_a_model_of_table_1_says_which_reading_it_supports(tmp_path, name, first):
    """With a regressor that looks at ten layers alone: the gradient finds them."""
    identity = ModelIdentity("Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl", 28, 28)
    data = made_up(tmp_path / "store", pairs=8, identity=identity)
    looked_at = [layer - first for layer in (14, 15, 16, 17, 18, 19, 20, 21, 24, 25)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        regressor = AttentionIoURegressor(28, 28)
    with torch.no_grad():
        for convolution in (m for m in regressor.modules() if getattr(m, "in_channels", 0) == 28 * 28):
            of_layers = convolution.weight.unflatten(1, (28, 28))  # a view
            of_layers[:, [layer for layer in range(28) if layer not in looked_at]] = 0
    said = []
    config = AnalysisConfig(min_group=1, draws=10)
    analyze_step(data, regressor, np.arange(len(data.iou)), tmp_path / "files", config, "test", say=said.append)
    assert f"{name}: 10 of its 10 layers are among the 10 most important here, and hold 100% of the importance" in said
    assert f"this analysis supports {name}" in said
    written = json.loads((tmp_path / "files" / "analysis.json").read_text())["table_1"]
    assert written["supported"] == name
    assert {reading["name"]: reading["shared"] for reading in written["readings"]}[name] == 10
