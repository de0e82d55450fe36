import numpy as np
import pytest
from tiny_parts import some_pairs

from acs_core.assets import resolve_model
from acs_core.lvlm import load_lvlm
from training.collect import CollectConfig, best_iou, collect, with_map_size
from training.errors import DataError
from training.store import read_store, shard_file

FEW = CollectConfig(samples=3, max_new_tokens=64)


@pytest.fixture(scope="module")
def lvlm():
    return load_lvlm(resolve_model("tiny-internvl"), device="cpu")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return some_pairs(tmp_path_factory.mktemp("world"), "test", 54)


@pytest.fixture(scope="module")
def store(lvlm, pairs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    report = collect(lvlm, pairs, folder, FEW)
    assert (report.collected, report.resumed, report.skipped) == (54, 0, ())
    return folder


def test_every_candidate_has_its_iou_and_attention(lvlm, pairs, store):
    data = read_store(store)
    assert data.pairs.tolist() == list(range(54))
    assert len(data.iou) > 54 and data.maps.shape[1:4] == (4, lvlm.num_layers, lvlm.num_heads)
    assert np.isfinite(data.maps).all() and (data.maps.sum(axis=(-2, -1)) <= 1.01).all()
    assert np.isfinite(data.entropy).all() and (data.entropy >= 0).all()
    for i in range(0, len(data.iou), 17):
        box = type(pairs[0].truth[0])(*data.box[i])
        assert data.iou[i] == pytest.approx(best_iou(box, pairs[data.pair[i]].truth), abs=1e-6)
        assert data.image[i] == pairs[data.pair[i]].image_id


def test_a_lost_shard_is_made_again_the_same(lvlm, pairs, store):
    before = read_store(store)
    shard_file(store, 1).unlink()
    report = collect(lvlm, pairs, store, FEW)
    after = read_store(store)
    assert (report.collected, report.resumed) == (4, 50)
    np.testing.assert_array_equal(before.box, after.box)
    np.testing.assert_allclose(before.maps, after.maps, atol=1e-3)


def test_other_settings_do_not_mix(lvlm, pairs, store):
    with pytest.raises(DataError, match="samples"):
        collect(lvlm, pairs, store, CollectConfig(samples=4, max_new_tokens=64))


def test_an_unreadable_picture_is_skipped_and_named(lvlm, pairs, tmp_path):
    broken = type(pairs[0])(99, tmp_path / "none.png", "key", pairs[0].truth)
    report = collect(lvlm, [broken, pairs[0]], tmp_path / "store", FEW)
    assert report.collected == 1 and "none.png" in report.skipped[0]


def test_greedy_collects_one_response(lvlm, pairs, tmp_path):
    collect(lvlm, pairs[:5], tmp_path, CollectConfig(greedy=True, max_new_tokens=64))
    assert set(read_store(tmp_path).response.tolist()) == {0}


@pytest.mark.parametrize(
    ("family", "asked", "size"),
    [("qwen2_5_vl", None, (24, 24)), ("qwen2_5_vl", (8, 8), (8, 8)), ("internvl", None, None)],
)
def test_maps_of_changing_shape_get_one_size(family, asked, size):
    class Loaded:
        pass

    Loaded.family = family
    assert with_map_size(CollectConfig(map_size=asked), Loaded()).map_size == size


def test_other_weights_under_the_same_name_do_not_mix(lvlm, pairs, store, monkeypatch):
    monkeypatch.setattr("training.collect.weights_fingerprint", lambda _: "other")
    with pytest.raises(DataError, match="other"):
        collect(lvlm, pairs, store, FEW)
