"""The files that ship with acs are the ones that were checked in."""

import shutil

import pytest

from acs_core import assets, shipped
from acs_core.assets import ASSETS, asset_for
from acs_core.errors import ModelError
from acs_core.lvlm import load_lvlm, loading
from acs_core.shipped import SUMS, check_shipped, digest_of, read_sums, write_sums


@pytest.fixture
def root(tmp_path):
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
def test_a_changed_file_is_refused_when_the_model_is_loaded(root, monkeypatch, change, said):
    monkeypatch.setattr(loading, "ASSETS", root)
    change(root / "tiny-internvl")
    with pytest.raises(ModelError, match=f"{said}.*install acs again"):
        load_lvlm(root / "tiny-internvl", device="cpu")
    check_shipped(root / "qwen2.5-vl-7b", root)


def test_a_changed_head_file_of_a_large_model_is_refused(root):
    class Qwen:
        name, family, revision, num_layers, num_heads = "Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl", None, 28, 28

    assert asset_for(Qwen(), "heads.json", root) == root / "qwen2.5-vl-7b" / "heads.json"
    file = root / "qwen2.5-vl-7b" / "heads.json"
    file.write_text(file.read_text().replace("14,", "13,"))
    with pytest.raises(ModelError, match="is not the one that was shipped"):
        asset_for(Qwen(), "heads.json", root)


def test_folders_of_the_user_are_not_asked_for_sums(root, tmp_path):
    check_shipped(tmp_path / "elsewhere", root / "tiny-internvl")
    (root / SUMS).unlink()
    flip(root / "tiny-internvl" / "model.safetensors")
    check_shipped(root / "tiny-internvl", root)


def test_sums_that_cannot_be_read_are_named(root):
    (root / SUMS).write_text("nonsense\n")
    with pytest.raises(ModelError, match="SHA256SUMS cannot be read"):
        check_shipped(root / "tiny-internvl", root)


def test_the_modules_agree_on_where_the_files_are():
    assert loading.ASSETS == assets.ASSETS and shipped.SUMS == "SHA256SUMS"
