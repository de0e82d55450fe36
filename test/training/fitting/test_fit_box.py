"""The box regressor on made-up attention that lies in the box of the good candidates and elsewhere for the bad."""

import json
from dataclasses import replace

import numpy as np
import pytest
from made_up_parts import HEADS, LAYERS, made_up

from acs_core.selection.box_regressor import BOX_REGRESSOR, BoxRegressor
from training.collection.maps import StoredMaps
from training.collection.part_arrays import encode
from training.errors import DataError
from training.fitting import fit_box
from training.fitting.artifacts import read_artifact
from training.fitting.fit import FitConfig, fit, fit_network, predict
from training.fitting.fit_box import WORK, ablations, box_step, chosen_iou
from training.fitting.metrics import agreement

SIDE = 8
CONFIG = FitConfig(epochs=8, learning_rate=3e-3, batch=32, dropout=0.1)


class Looking(StoredMaps):
    """Attention of layer 1 at the own box if that is good, else at some other place; the rest is noise."""

    def __init__(self, data):
        self.files = data.maps.files
        rng = np.random.default_rng(7)
        maps = rng.random((len(data.iou), 4, LAYERS, HEADS, SIDE, SIDE)).astype(np.float32) / SIDE**2
        centre = ((data.box[:, :2] + data.box[:, 2:]) / 2 / 100 * SIDE).astype(int)
        moved = (centre + rng.integers(3, SIDE - 2, centre.shape)) % SIDE  # at least three cells away
        for i, (x, y) in enumerate(np.where(data.iou[:, None] > 0.5, centre, moved)):
            maps[i, :, 1, :, y, x] += 0.3
        self.seen, self.part, self._kept = maps, np.zeros(len(maps), np.int64), ()

    shape = property(lambda self: self.seen.shape)

    def coded(self, index, empty=None):
        return encode(self.seen[np.asarray(index)])


@pytest.fixture(scope="module")
def looking(tmp_path_factory):
    """A collection whose boxes are good (IoU 0.9) or bad (0.1) by chance, independent of place and size."""
    data = made_up(tmp_path_factory.mktemp("looking"), pairs=80)
    iou = np.where(np.random.default_rng(3).random(len(data.iou)) < 0.5, 0.9, 0.1).astype(np.float32)
    data = replace(data, iou=iou)
    return replace(data, maps=Looking(data))


@pytest.fixture(scope="module")
def boxed(looking):
    return fit_network(BoxRegressor, looking, CONFIG, device="cpu")


def test_it_learns_to_rank_by_attention_in_the_own_box(looking, boxed):
    assert boxed.held.pearson > 0.8
    found = chosen_iou(boxed.predicted, looking.iou[boxed.validation], looking.pair[boxed.validation])
    assert found > 0.8


def test_without_attention_or_with_that_of_another_it_knows_nothing(looking, boxed):
    own, even, other, moved = ablations(boxed, looking)
    assert own["where"] == "held-out images, own attention, own box" and own["pearson"] > 0.8
    chance = chosen_iou(np.zeros(len(boxed.validation)), looking.iou[boxed.validation], looking.pair[boxed.validation])
    assert even["pearson"] == 0.0 and even["chosen_iou"] == pytest.approx(chance, abs=1e-4) and chance < 0.6
    for row in (other, moved):
        assert abs(row["pearson"]) < 0.4 < own["pearson"] - 0.3 and row["chosen_iou"] < own["chosen_iou"] - 0.15


def test_it_cannot_learn_from_boxes_alone(looking):
    """Even where the size of a box tells its IoU."""
    boxes = looking.box.copy()
    boxes[:, 2:] = boxes[:, :2] + np.where(looking.iou > 0.5, 5, 20)[:, None]
    told = replace(looking, box=boxes)
    told.maps.seen, kept = np.full_like(looking.maps.seen, 1 / SIDE**2), looking.maps.seen
    try:
        found = fit_network(BoxRegressor, told, replace(CONFIG, epochs=2), device="cpu")
    finally:
        told.maps.seen = kept
    assert np.ptp(found.predicted) < 1e-4


def test_attention_can_be_read_in_other_boxes(looking, boxed):
    index = boxed.validation[:20]
    same = predict(boxed.regressor, looking, index, in_boxes_of=index)
    np.testing.assert_array_equal(same, predict(boxed.regressor, looking, index))
    assert np.abs(predict(boxed.regressor, looking, index, in_boxes_of=np.roll(index, 5)) - same).max() > 0.1


def test_ties_count_by_their_mean():
    predicted, iou = np.array([0.5, 0.5, 0.2, 0.1, 0.9]), np.array([0.2, 0.4, 1.0, 0.5, 0.7])
    assert chosen_iou(predicted, iou, np.array([0, 0, 0, 1, 1])) == pytest.approx((0.3 + 0.7) / 2)
    assert chosen_iou(predicted, iou, np.arange(5)) == 0.0, "nothing to choose between"


def test_the_step_writes_what_it_measures(files, collection):
    content = json.loads((files[0] / "fit.json").read_text())["box"]
    told = [(r["where"], r["temperature"], r["kind"]) for r in content["agreement"]]
    assert told[0] == ("held-out images", 1.0, "all") and ("fresh", 0.5, "all") in told
    assert content["agreement"][0]["count"] == len(files[1].validation), "the same split as the regressor's"
    assert [r["where"].split(", ", 1)[1] for r in content["ablations"]] == [
        "own attention, own box",
        "even attention, own box",
        "attention of another candidate, own box",
        "own attention, box of another candidate",
    ]
    assert content["ablations"][1]["pearson"] == 0.0
    assert len(content["history"]) == content["epochs"] == 3
    model, info = read_artifact(files[0], BOX_REGRESSOR, collection)
    assert info.made_by == "test" and info.map_size == (4, 4)
    held = agreement(predict(model, collection, files[1].validation), collection.iou[files[1].validation])
    assert held.pearson == pytest.approx(content["agreement"][0]["pearson"], abs=0.01), "stored in half precision"
    for name in ("learning_curves_box", "predicted_iou_box"):
        assert (files[0] / "figures" / f"{name}.png").is_file()


def test_a_stopped_fit_goes_on_to_the_same_end(collection, tmp_path):
    class Stop(Exception):
        pass

    def stop_at_two(epoch, loss, held):
        if epoch == 2:
            raise Stop

    def run(work, progress=lambda epoch, loss, held: None):
        return box_step(collection, tmp_path, FitConfig(epochs=4), "", None, work, lambda line: None, progress, "cpu")

    (tmp_path / "unbroken").mkdir()
    unbroken = run(tmp_path / "unbroken")
    (tmp_path / "broken").mkdir()
    with pytest.raises(Stop):
        run(tmp_path / "broken", stop_at_two)
    seen = []
    resumed = run(tmp_path / "broken", lambda epoch, loss, held: seen.append(epoch))
    assert 1 not in seen and seen[-1] == 4, "it does not begin again"
    np.testing.assert_allclose(resumed.fitted.predicted, unbroken.fitted.predicted, atol=1e-5)
    assert (tmp_path / "broken" / WORK / "last.ckpt").is_file()


def test_checkpoints_of_the_other_regressor_are_refused(collection, tmp_path):
    fit(collection, FitConfig(epochs=1), tmp_path / "fit", device="cpu")
    with pytest.raises(DataError, match=r"does not belong to this (fit|regressor).*delete last.ckpt and best.ckpt"):
        fit_network(BoxRegressor, collection, FitConfig(epochs=1), tmp_path / "fit", device="cpu")


def test_one_device_fits_it(monkeypatch):
    monkeypatch.setattr(fit_box.torch.cuda, "is_available", lambda: True)
    assert [fit_box._one(device) for device in ("auto", "cpu", "cuda:1")] == ["cuda:0", "cpu", "cuda:1"]
    monkeypatch.setattr(fit_box.torch.cuda, "is_available", lambda: False)
    assert fit_box._one("auto") == "cpu"
