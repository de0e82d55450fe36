import pytest

from acs_core.assets import resolve_model
from acs_core.calibration import Calibration
from acs_core.heads import HeadFile
from acs_core.lvlm import load_lvlm
from acs_core.selection import make_selector
from training.analyze import AnalysisConfig
from training.build import BuildConfig, build
from training.coco import load_pairs
from training.collect import CollectConfig
from training.fit import FitConfig
from training.synth import write_coco


@pytest.fixture(scope="module")
def lvlm():
    return load_lvlm(resolve_model("tiny-internvl"), device="cpu")


def test_a_model_gets_all_its_files_and_they_load(lvlm, tmp_path):
    train = load_pairs(write_coco(tmp_path / "train", "train", 40))[:50]
    fresh = load_pairs(write_coco(tmp_path / "val", "val", 40))[:55]
    config = BuildConfig(
        CollectConfig(samples=4, max_new_tokens=64), FitConfig(epochs=2), AnalysisConfig(min_group=1, heads=2)
    )
    said = []
    out = tmp_path / "files"
    result = build(lvlm, train, fresh, tmp_path / "work", out, "test", config, say=said.append)
    heads = HeadFile.load(out / "heads.json")
    assert heads == result.heads and all(len(h) == 2 for h in heads.heads)
    assert make_selector("acs-free", lvlm, heads=out / "heads.json").name == "acs-free"
    assert make_selector("acs-learned", lvlm, regressor=out / "regressor.safetensors").name == "acs-learned"
    for name in ("acs-free", "acs-learned"):
        curve = Calibration.load(out / f"calibration-{name}.json")
        assert curve.selector == name and curve.num_samples >= 50
    assert any("Pearson" in line for line in said)
