import json
import shutil
from dataclasses import dataclass, replace

import pytest

from acs_core.assets import ASSETS, asset_for, model_names, resolve_model
from acs_core.errors import HeadFileError
from acs_core.heads import Head, HeadFile
from acs_core.identity import ModelIdentity


@dataclass
class FakeModel:
    name: str
    family: str
    num_layers: int
    num_heads: int
    revision: str | None = None


QWEN = FakeModel("Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl", 28, 28)
INTERNVL = FakeModel("OpenGVLab/InternVL3_5-8B-HF", "internvl", 36, 32)
TINY = FakeModel("tiny", "internvl", 2, 2)


@pytest.fixture
def root(tmp_path):
    """A small embedded model with chosen heads, and the two shipped files of kind "layers"."""
    shutil.copytree(ASSETS / "qwen2.5-vl-7b", tmp_path / "qwen2.5-vl-7b")
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "regressor.safetensors").write_bytes(b"")
    heads = ((Head(0, 0, 0.1),),) * 4
    HeadFile(ModelIdentity("tiny", "internvl", 2, 2), "heads", heads).save(folder / "heads.json")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "model", "layers"),
    [
        ("qwen2.5-vl-7b", QWEN, (14, 15, 16, 17, 18, 19, 20, 21, 24, 25)),
        ("internvl3.5-8b", INTERNVL, (17, 18, 19, 20, 21, 22, 23, 24, 26, 35)),
    ],
)
def test_the_shipped_head_files_are_table_1(name, model, layers):
    assert name in model_names()
    assert resolve_model(name) == model.name
    path = asset_for(model, "heads.json")
    assert path == ASSETS / name / "heads.json"
    file = HeadFile.load(path)
    file.check(model)
    assert (file.kind, file.layers) == ("layers", layers)
    assert all(len(pairs) == len(layers) * model.num_heads for pairs in file.pairs())
    assert "table 1" in file.made_by and "not from an entropy analysis" in file.made_by


def test_every_shipped_folder_can_be_used():
    for name in model_names():
        assert json.loads((ASSETS / name / "heads.json").read_text())["schema_version"] == 1
        HeadFile.load(ASSETS / name / "heads.json")


@pytest.mark.parametrize("name", ["owner/model", "/some/where", "nonsense"])
def test_other_names_stay_as_they_are(root, name):
    assert resolve_model(name, root) == name


def test_names_of_embedded_and_of_larger_models(root):
    assert model_names(root) == ("qwen2.5-vl-7b", "tiny")
    assert resolve_model("tiny", root) == str(root / "tiny")
    assert resolve_model("qwen2.5-vl-7b", root) == QWEN.name
    assert model_names(root / "none") == ()


@pytest.mark.parametrize(
    ("model", "file_name", "found"),
    [
        (TINY, "heads.json", "tiny/heads.json"),
        (TINY, "regressor.safetensors", "tiny/regressor.safetensors"),
        (TINY, "calibration-acs-free.json", None),
        (replace(TINY, name="/weights/Tiny"), "heads.json", "tiny/heads.json"),
        # single heads were chosen for one set of weights, a layers file serves the whole class
        (replace(TINY, name="other"), "heads.json", None),
        (replace(QWEN, name="/weights/my-finetune"), "heads.json", "qwen2.5-vl-7b/heads.json"),
        (replace(QWEN, num_layers=36), "heads.json", None),
        (replace(QWEN, family="internvl"), "heads.json", None),
        (QWEN, "regressor.safetensors", None),
    ],
)
def test_default_files(root, model, file_name, found):
    assert asset_for(model, file_name, root) == (root / found if found else None)


def test_a_models_own_folder_comes_first(root, tmp_path):
    own = tmp_path / "elsewhere" / "tiny"
    own.mkdir(parents=True)
    (own / "heads.json").write_text("{}")
    assert asset_for(replace(TINY, name=str(own)), "heads.json", root) == own / "heads.json"
    assert asset_for(replace(TINY, name=str(own)), "regressor.safetensors", root) == root / "tiny/regressor.safetensors"


def test_a_damaged_shipped_file_is_an_error(root):
    (root / "qwen2.5-vl-7b" / "heads.json").write_text("{")
    with pytest.raises(HeadFileError, match="not valid JSON"):
        resolve_model("qwen2.5-vl-7b", root)
