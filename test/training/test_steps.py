"""The steps as their commands run them: from files to files."""

import json
import shutil
from dataclasses import replace

import pytest

from acs_core.assets import calibration_file
from acs_core.calibration import Calibration
from acs_core.heads import HeadFile
from training.analyze import AnalysisConfig
from training.errors import DataError
from training.fit import FitConfig
from training.made_files import made_selectors, read_joint, read_regressor
from training.offline_choice import calls
from training.steps import analyze_step, calibrate_step, fit_step


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
    assert read_joint(files[0], collection).made_by == "test"


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
    selectors = made_selectors(out, fresh_collection)
    assert [s.name for s in selectors] == ["acs-learned", "acs-free", "acs-fusion", "acs-joint"]
    told = calibrate_step(fresh_collection, selectors, out, "test", said.append)
    assert set(told) == {"acs-learned", "acs-free", "acs-fusion", "acs-joint"}

    again = {"acs-fusion": [replace(call, looked_again=True) for call in calls(fresh_collection, False)]}
    told = calibrate_step(fresh_collection, selectors, out, "test", said.append, again)
    assert set(told) == {"acs-learned", "acs-free", "acs-fusion", "acs-joint", "acs-fusion, second look"}
    assert set(json.loads((out / "calibration.json").read_text())) == set(told)
    one, second = (Calibration.load(out / calibration_file("acs-fusion", looks)) for looks in (False, True))
    assert second.second_look and second.made_by == "test, with a second look"
    assert replace(second, second_look=False, made_by="test") == one, "the same answers"
    assert (out / "figures" / "reliability-acs-fusion-second-look.png").is_file()


def test_another_models_collection_judges_nothing(collection, strange, tmp_path):
    with pytest.raises(DataError, match="both must be of one model"):
        fit_step(collection, tmp_path, FitConfig(epochs=1), "", {"x": strange}, say=lambda text: None)
