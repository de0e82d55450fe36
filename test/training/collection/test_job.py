import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from acs_core.geometry import Box
from acs_core.lvlm import FAMILIES
from acs_core.lvlm.picture import PictureOptions
from acs_core.selection.second_look import Window
from training.collection.job import CollectConfig, Job, config_of, describe, picture_options_of, with_map_size
from training.collection.store import part_folder
from training.data.pairs import Pair

LVLM = SimpleNamespace(
    name="some/model",
    family="internvl",
    revision=None,
    num_layers=2,
    num_heads=3,
    hidden_size=None,
    hf_model=SimpleNamespace(dtype="torch.bfloat16"),
    adapter=FAMILIES["internvl"],
    picture=PictureOptions(FAMILIES["internvl"].max_image_tokens),
)
PAIRS = tuple(Pair(i, Path("x.png"), "key", (Box(1, 2, 3, 4),), "small") for i in range(24))


@pytest.mark.parametrize(
    ("count", "parts"), [(1, [range(1)]), (10, [range(10)]), (11, [range(10), range(10, 11)]), (0, [])]
)
def test_every_pair_is_in_one_part(count, parts):
    job = Job(PAIRS[:count], CollectConfig())
    assert [job.pairs_of(n) for n in range(job.parts)] == parts


def test_missing_parts_are_those_without_a_folder(tmp_path):
    job = Job(PAIRS, CollectConfig())
    assert job.missing(tmp_path) == [0, 1, 2]
    part_folder(tmp_path, 1).mkdir()
    assert job.missing(tmp_path) == [0, 2]


@pytest.mark.parametrize(
    ("family", "asked", "size"),
    [("qwen2_5_vl", None, (24, 24)), ("qwen2_5_vl", (8, 8), (8, 8)), ("internvl", None, None)],
)
def test_maps_of_changing_shape_get_one_size(family, asked, size):
    lvlm = SimpleNamespace(adapter=FAMILIES[family])
    assert with_map_size(CollectConfig(map_size=asked), lvlm).map_size == size


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, {}),
        ({"max_image_tokens": 512}, {"max_image_tokens": 512}),
        ({"coordinate_frame": "resized"}, {"coordinate_frame": "resized"}),
        ({"max_image_tokens": 512, "coordinate_frame": "0-1"}, {"max_image_tokens": 512, "coordinate_frame": "0-1"}),
    ],
)
def test_the_manifest_has_the_picture_options_that_are_not_the_familys(given, kept):
    lvlm = SimpleNamespace(**vars(LVLM) | {"picture": replace(LVLM.picture, **given)})
    manifest = json.loads(json.dumps(describe(lvlm, Job(PAIRS, CollectConfig()), "abc", "data.json")))
    assert picture_options_of(manifest) == kept


@pytest.mark.parametrize(
    "config",
    [
        CollectConfig(),
        CollectConfig(samples=3, temperature=0.5, seed=7, map_size=(24, 16), greedy=True),
        CollectConfig(step="consuming"),
    ],
)
def test_settings_come_back_from_the_manifest(config):
    manifest = json.loads(json.dumps(describe(LVLM, Job(PAIRS, config), "abc", "data.json")))
    assert config_of(manifest) == config
    assert ("step" in manifest) == (config.step == "consuming"), "collections without a choice of step can be gone on"


def test_the_manifest_tells_what_is_asked():
    told = describe(LVLM, Job(PAIRS[:2], CollectConfig()), "abc", "data.json")
    assert told["model"] == {
        "model": "some/model",
        "family": "internvl",
        "revision": None,
        "num_layers": 2,
        "num_heads": 3,
        "weights": "abc",
    }
    assert (told["dtype"], told["data"], told["pairs"]) == ("bfloat16", "data.json", ["0:key", "1:key"])
    assert told["truth"] == [[(1, 2, 3, 4)]] * 2 and told["kinds"] == ["small"] * 2
    assert "windows" not in told
    window = Window(Box(0.12345, 1, 2, 3), (9, 9))
    pairs = (PAIRS[0], replace(PAIRS[1], window=window))
    assert describe(LVLM, Job(pairs, CollectConfig()), "abc", "")["windows"] == [None, [0.123, 1, 2, 3]]
