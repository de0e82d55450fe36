import json
import shutil
from dataclasses import dataclass, replace

import pytest

from acs_core.artifacts import registry
from acs_core.artifacts.heads import Head, HeadFile
from acs_core.artifacts.identity import ModelIdentity
from acs_core.artifacts.registry import (
    ASSETS,
    SUMS,
    asset_for,
    check_shipped,
    digest_of,
    model_names,
    read_sums,
    resolve_model,
    write_sums,
)
from acs_core.errors import HeadFileError, ModelError
from acs_core.lvlm import load_lvlm, loading


@dataclass
class ShippedModel:
    name: str
    family: str
    num_layers: int
    num_heads: int
    hidden_size: int | None = None
    revision: str | None = None


QWEN = ShippedModel("Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl", 28, 28, 3584)
INTERNVL = ShippedModel("OpenGVLab/InternVL3_5-8B-HF", "internvl", 36, 32, 4096)
TINY = ShippedModel("tiny", "internvl", 2, 2)


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
        (replace(QWEN, name="/weights/my-finetune", hidden_size=2048), "heads.json", None),
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


@pytest.fixture
def shipped_root(tmp_path):
    """A root of shipped files: an embedded model's small files, and another folder."""
    for name in ("tiny-internvl", "qwen2.5-vl-7b"):
        shutil.copytree(ASSETS / name, tmp_path / name, ignore=shutil.ignore_patterns("regressor*"))
    write_sums(tmp_path)
    return tmp_path


def test_every_shipped_file_has_its_sum():
    check_shipped(ASSETS, ASSETS)
    listed = set(read_sums(ASSETS))
    assert listed == {p.relative_to(ASSETS).as_posix() for p in ASSETS.rglob("*") if p.is_file() and p.name != SUMS}
    assert digest_of(ASSETS / "tiny-internvl" / "model.safetensors") in read_sums(ASSETS).values()


def test_weights_are_shipped_as_safetensors_and_json_only():
    assert {p.suffix for p in ASSETS.rglob("*") if p.is_file() and p.name != SUMS} == {
        ".safetensors",
        ".json",
        ".jinja",
    }


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: flip(f / "model.safetensors"), "is not the one that was shipped"),
        (lambda f: (f / "tokenizer.json").unlink(), "is missing"),
        (lambda f: (f / "added_tokens.json").write_text("{}"), "was not shipped"),
    ],
)
def test_a_changed_file_is_refused_when_the_model_is_loaded(shipped_root, monkeypatch, change, said):
    monkeypatch.setattr(loading, "ASSETS", shipped_root)
    change(shipped_root / "tiny-internvl")
    with pytest.raises(ModelError, match=f"{said}.*install acs again"):
        load_lvlm(shipped_root / "tiny-internvl", device="cpu")
    check_shipped(shipped_root / "qwen2.5-vl-7b", shipped_root)


def test_a_changed_head_file_of_a_large_model_is_refused(shipped_root):
    assert asset_for(QWEN, "heads.json", shipped_root) == shipped_root / "qwen2.5-vl-7b" / "heads.json"
    file = shipped_root / "qwen2.5-vl-7b" / "heads.json"
    file.write_text(file.read_text().replace("14,", "13,"))
    with pytest.raises(ModelError, match="is not the one that was shipped"):
        asset_for(QWEN, "heads.json", shipped_root)


def test_folders_of_the_user_are_not_asked_for_sums(shipped_root, tmp_path):
    check_shipped(tmp_path / "elsewhere", shipped_root / "tiny-internvl")
    (shipped_root / SUMS).unlink()
    flip(shipped_root / "tiny-internvl" / "model.safetensors")
    check_shipped(shipped_root / "tiny-internvl", shipped_root)


def test_sums_that_cannot_be_read_are_named(shipped_root):
    (shipped_root / SUMS).write_text("nonsense\n")
    with pytest.raises(ModelError, match="SHA256SUMS cannot be read"):
        check_shipped(shipped_root / "tiny-internvl", shipped_root)


def test_the_modules_agree_on_where_the_files_are():
    assert loading.ASSETS == registry.ASSETS and registry.SUMS == "SHA256SUMS"
