"""Both readings of table 1: shipped, chosen by name, and compared with a ranking of layers."""

import shutil
from dataclasses import dataclass, replace

import numpy as np
import pytest

from acs_core.artifacts.heads import HeadFile
from acs_core.artifacts.identity import ModelIdentity
from acs_core.artifacts.registry import ASSETS, asset_for
from acs_core.artifacts.table_1 import (
    FROM_0,
    FROM_1,
    READINGS,
    compare_readings,
    describe,
    load_named,
    reading_for,
    supported_reading,
)
from acs_core.errors import HeadFileError, ModelError
from acs_core.selection.registry import make_selector

PRINTED = {  # table 1 of the paper, as printed
    "Qwen/Qwen2.5-VL-7B-Instruct": (14, 15, 16, 17, 18, 19, 20, 21, 24, 25),
    "OpenGVLab/InternVL3_5-8B-HF": (17, 18, 19, 20, 21, 22, 23, 24, 26, 35),
}


@dataclass
class Table1Model:
    name: str
    family: str
    num_layers: int
    num_heads: int
    revision: str | None = None
    device: str = "cpu"
    hidden_size: int | None = None


QWEN = Table1Model("Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl", 28, 28)
INTERNVL = Table1Model("OpenGVLab/InternVL3_5-8B-HF", "internvl", 36, 32)
QWEN_ID = ModelIdentity(QWEN.name, QWEN.family, 28, 28)


@pytest.mark.parametrize("model", [QWEN, INTERNVL], ids=["qwen", "internvl"])
@pytest.mark.parametrize(("name", "first"), [(FROM_0, 0), (FROM_1, 1)])
def test_each_reading_is_shipped_and_says_what_it_is(model, name, first):
    file = reading_for(name, model)
    assert file.layers == tuple(layer - first for layer in PRINTED[model.name])
    assert file.kind == "layers" and file.identity.model == model.name
    assert f"counted from {first}" in file.made_by and name in file.made_by
    other = FROM_1 if name == FROM_0 else FROM_0
    assert f"heads={other}" in file.made_by and "does not say from which number" in file.made_by


@pytest.mark.parametrize(("name", "layers"), [(FROM_0, 14), (FROM_1, 13)])
def test_a_selector_takes_a_reading_by_name(name, layers):
    selector = make_selector("acs-free", QWEN, heads=name)
    assert min(layer for pairs in selector.needs.heads for layer, _ in pairs) == layers


def test_the_default_is_the_reading_from_0():
    assert HeadFile.load(asset_for(QWEN, "heads.json")) == reading_for(FROM_0, QWEN)


@pytest.mark.parametrize("name", READINGS)
def test_a_model_that_table_1_does_not_name(name):
    model = Table1Model("Qwen/Qwen3-VL-8B-Instruct", "qwen3_vl", 36, 32)
    message = f"heads={name}: .* no layers for Qwen/Qwen3-VL-8B-Instruct, only for .*InternVL3_5-8B-HF.*Qwen2.5-VL-7B"
    with pytest.raises(HeadFileError, match=message):
        make_selector("acs-free", model, heads=name)


def test_a_path_is_read_as_before(tmp_path):
    HeadFile.from_layers(QWEN_ID, [3]).save(tmp_path / "heads.json")
    assert load_named(tmp_path / "heads.json", QWEN).layers == (3,)


def test_a_changed_file_is_refused(tmp_path):
    shutil.copytree(ASSETS / "qwen2.5-vl-7b", tmp_path / "qwen2.5-vl-7b")
    file = tmp_path / "qwen2.5-vl-7b" / READINGS[FROM_1]
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  qwen2.5-vl-7b/{file.name}\n")
    with pytest.raises(ModelError, match="not the one that was shipped"):
        reading_for(FROM_1, QWEN, tmp_path)


def importance(layers, count=28):
    """As an analysis finds it: most at ``layers``, the first of them highest, and something everywhere."""
    values = np.full(count, 0.1)
    values[list(layers)] = np.linspace(2, 1, len(layers))
    return values


@pytest.mark.parametrize(
    ("layers", "supported"),
    [
        (PRINTED[QWEN.name], FROM_0),
        ([layer - 1 for layer in PRINTED[QWEN.name]], FROM_1),
        ([*range(14, 23), 24], FROM_0),
        ([*range(12, 20), 22, 23], FROM_1),
        ([*range(14, 24)], None),  # as many of one as of the other
        ([*range(10)], None),
    ],
)
def test_the_reading_that_agrees_better(layers, supported):
    found = compare_readings(importance(layers), QWEN_ID)
    assert [one.name for one in found] == [FROM_0, FROM_1]
    for one, first in zip(found, (0, 1), strict=True):
        table = {layer - first for layer in PRINTED[QWEN.name]}
        assert one.shared == len(table & set(layers))
        assert one.share == pytest.approx(importance(layers)[sorted(table)].sum() / importance(layers).sum())
    assert supported_reading(found) == supported
    *numbers, verdict = describe(found, QWEN_ID)
    assert numbers[0].startswith(f"{FROM_0}: {found[0].shared} of its 10 layers")
    assert verdict == f"this analysis supports {supported or 'neither reading of table 1'}"


def test_numbers_that_disagree_support_neither():
    values = importance([21, 25, *range(14, 21), 24])  # 21 and 25 are in the reading from 0 alone
    values[23] = 50.0  # in the other one alone, and in the place of 24
    found = compare_readings(values, QWEN_ID)
    assert found[0].shared > found[1].shared and found[0].share < found[1].share
    assert supported_reading(found) is None


def test_another_model_has_nothing_to_compare():
    other = replace(QWEN_ID, num_layers=36)
    assert compare_readings(np.ones(36), other) == () and supported_reading(()) is None
    assert describe((), other) == [
        f"table 1 of the paper has no layers for {QWEN.name}: no reading of its layer numbers to compare"
    ]


def test_importance_of_zero_is_no_support():
    found = compare_readings(np.zeros(28), QWEN_ID)
    assert [one.share for one in found] == [0.0, 0.0] and supported_reading(found) is None
