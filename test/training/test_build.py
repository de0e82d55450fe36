import pytest
from tiny_parts import some_pairs

from acs_core.assets import resolve_model
from acs_core.calibration import Calibration
from acs_core.heads import HeadFile
from acs_core.lvlm import load_lvlm
from acs_core.selection import make_selector
from training.analyze import AnalysisConfig
from training.build import BuildConfig, build, describe
from training.collect import CollectConfig
from training.errors import DataError
from training.fit import FitConfig
from training.pairs import load_pairs
from training.synth import write_coco


@pytest.fixture(scope="module")
def lvlm():
    return load_lvlm(resolve_model("tiny-internvl"), device="cpu")


def test_a_model_gets_all_its_files_and_they_load(lvlm, tmp_path):
    train = some_pairs(tmp_path / "train", "train", 50)
    fresh = some_pairs(tmp_path / "val", "val", 90)
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


def test_too_many_pairs_for_the_memory_are_refused_before_sampling(lvlm, tmp_path):
    pairs = load_pairs(write_coco(tmp_path / "train", "train", 2)) * 1_000_000
    with pytest.raises(DataError, match="--limit"):
        build(lvlm, pairs, [], tmp_path / "work", tmp_path / "files", "test")
    assert not (tmp_path / "work").exists()


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
