import re
from dataclasses import dataclass, replace

import pytest

from acs_core.artifacts.identity import ModelIdentity, weights_fingerprint
from acs_core.artifacts.registry import ASSETS


@dataclass
class IdentifiedModel:
    name: str
    family: str = "internvl"
    revision: str | None = None
    num_layers: int = 2
    num_heads: int = 3


FILES = {"config.json": b"{}", "model-1.safetensors": b"abc", "model-2.safetensors": b"def"}


def fingerprint(folder, files):
    """Of a folder of this name that holds ``files``."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return weights_fingerprint(IdentifiedModel(str(folder)))


def test_a_copy_has_the_same_fingerprint(tmp_path):
    first = fingerprint(tmp_path / "a" / "model", FILES)
    assert re.fullmatch("[0-9a-f]{16}", first)
    copy = dict(reversed(FILES.items())) | {"heads.json": b"{}", "regressor.safetensors": b"other"}
    assert fingerprint(tmp_path / "b" / "renamed", copy) == first


@pytest.mark.parametrize(
    "change",
    [
        {"model-1.safetensors": b"abd"},
        {"model-1.safetensors": b"def", "model-2.safetensors": b"abc"},
        {"model-1.safetensors": b"abcd", "model-2.safetensors": b"ef"},
        {"config.json": b"{} "},
        {"model-3.safetensors": b""},
    ],
)
def test_other_weights_have_another(tmp_path, change):
    assert fingerprint(tmp_path / "a" / "model", FILES) != fingerprint(tmp_path / "b" / "model", FILES | change)


@pytest.mark.parametrize(("revision", "expected"), [("0123abc", "0123abc"), (None, "")])
def test_a_hub_model_is_known_by_its_revision(revision, expected):
    assert weights_fingerprint(IdentifiedModel("some/model", revision=revision)) == expected


def test_a_folder_without_weights_has_none(tmp_path):
    assert fingerprint(tmp_path / "model", {"config.json": b"{}"}) == ""


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"hidden_size": None}, True),  # files of earlier versions do not have it
        ({"hidden_size": 32}, False),
        ({"revision": "def"}, False),
        ({"model": "some/other"}, False),
        ({"num_heads": 4}, False),
    ],
)
def test_one_model_at_one_revision(change, same):
    one = ModelIdentity("some/model", "internvl", 2, 3, "abc", 64)
    other = replace(one, **change)
    assert (one.is_same(other), other.is_same(one)) == (same, same)


def test_the_shipped_model_has_one():
    assert len(weights_fingerprint(IdentifiedModel(str(ASSETS / "tiny-internvl")))) == 16
