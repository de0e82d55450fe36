import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from acs_core.output import PART
from training.collection.maps import StoredMaps
from training.errors import DataError
from training.fitting import batches
from training.fitting.fit import FitConfig, fit, predict, split, split_by_image


def test_no_image_is_on_both_sides():
    images = np.repeat(np.arange(50), 7)
    train, validation = split_by_image(images, 0.2, seed=3)
    assert len(train) + len(validation) == len(images)
    assert not set(images[train]) & set(images[validation]) and len(set(images[validation])) == 10


def test_the_regressor_learns_what_attention_shows(fitted, fresh_collection):
    assert fitted.held.pearson > 0.8
    guess = predict(fitted.regressor, fresh_collection, np.arange(len(fresh_collection.iou)))
    assert np.corrcoef(guess, fresh_collection.iou)[0, 1] > 0.8
    assert ((guess >= 0) & (guess <= 1)).all()


def test_the_best_epoch_is_kept(fitted):
    best = min(fitted.history, key=lambda row: row["val_mse"])
    assert fitted.best_epoch == best["epoch"]
    assert fitted.held.mse == pytest.approx(best["val_mse"], abs=1e-5)
    assert fitted.held.pearson == pytest.approx(best["val_r"], abs=1e-4)


def test_it_stops_when_nothing_improves(collection):
    noise = replace(collection, iou=np.random.default_rng(5).random(len(collection.iou)).astype(np.float32))
    seen = []
    result = fit(noise, FitConfig(epochs=20, patience=2), progress=lambda epoch, loss, held: seen.append(epoch))
    assert result.epochs < 20
    assert seen == list(range(1, result.epochs + 1))


def test_a_stopped_fit_goes_on_to_the_same_end(collection, tmp_path):
    class Stop(Exception):
        pass

    def stop_at_three(epoch, loss, held):
        if epoch == 3:
            raise Stop

    config = FitConfig(epochs=5)
    unbroken = fit(collection, config, tmp_path / "unbroken")
    with pytest.raises(Stop):
        fit(collection, config, tmp_path / "broken", stop_at_three)
    seen = []
    resumed = fit(collection, config, tmp_path / "broken", lambda epoch, loss, held: seen.append(epoch))
    assert 1 not in seen and seen[-1] == 5, "it does not begin again"
    assert [row["epoch"] for row in resumed.history] == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(resumed.predicted, unbroken.predicted, atol=1e-5)


def test_a_stopped_fit_goes_on_to_the_same_end_with_maps_on_disk_and_with_workers(collection, tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def stop_at_two(epoch, loss, held):
        if epoch == 2:
            raise Stop

    monkeypatch.setattr(batches, "GROUP", 100)  # several groups of parts
    config = FitConfig(epochs=4, batch=16)
    unbroken = fit(collection, config, workers=0)
    assert collection.maps.in_memory
    maps = collection.maps
    places = tuple(maps._place[maps.part == number] for number in range(len(maps.files)))
    on_disk = replace(collection, maps=StoredMaps(maps.files, places, memory=0))
    with pytest.raises(Stop):
        fit(on_disk, config, tmp_path / "broken", stop_at_two, workers=2)
    resumed = fit(on_disk, config, tmp_path / "broken", workers=1)
    assert not on_disk.maps.in_memory and [row["epoch"] for row in resumed.history] == [1, 2, 3, 4]
    np.testing.assert_allclose(resumed.predicted, unbroken.predicted, atol=1e-5)


KILLED = """
import os, signal, sys
from pathlib import Path
from acs_core.output import PART
from training.fitting.fit import FitConfig, fit
from training.collection.store import read_store

count = 0

def replace(self, target, whole=Path.replace):
    # An epoch writes one checkpoint or two. The sixth is written, and dies before it is in place.
    global count
    count += self.name.startswith(PART) and self.suffix == ".ckpt"
    if count == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(self, target)

Path.replace = replace
fit(read_store(Path(sys.argv[1])), FitConfig(epochs=5, patience=9), Path(sys.argv[2]))
"""


def test_a_killed_fit_goes_on_to_the_same_end(collection, collection_folder, tmp_path):
    config = FitConfig(epochs=5, patience=9)
    unbroken = fit(collection, config, tmp_path / "unbroken")
    work = tmp_path / "killed"
    run = subprocess.run([sys.executable, "-c", KILLED, str(collection_folder), str(work)], capture_output=True)
    assert run.returncode == -signal.SIGKILL, run.stderr.decode()
    assert [f.suffix for f in work.glob(f"{PART}*")] == [".ckpt"]
    assert {"best.ckpt", "last.ckpt", "fit.json"} <= {f.name for f in work.iterdir()}
    seen = []
    resumed = fit(collection, config, work, lambda epoch, loss, held: seen.append(epoch))
    assert 1 not in seen and seen[-1] == 5, "it does not begin again"
    np.testing.assert_allclose(resumed.predicted, unbroken.predicted, atol=1e-5)
    assert not list(work.glob(f"{PART}*"))


def test_checkpoints_of_another_fit_are_not_mixed_in(collection, fresh_collection, tmp_path):
    fit(collection, FitConfig(epochs=1), tmp_path / "fit")
    with pytest.raises(DataError, match="other settings"):
        fit(collection, FitConfig(epochs=2), tmp_path / "fit")
    with pytest.raises(DataError, match="another collection"):
        fit(fresh_collection, FitConfig(epochs=1), tmp_path / "fit")


def test_too_little_data_is_said(collection):
    with pytest.raises(DataError, match="too few"):
        split(replace(collection, iou=collection.iou[:30], image=collection.image[:30]), FitConfig())


def test_an_empty_side_is_said(collection):
    with pytest.raises(DataError, match="training side of the split is empty"):
        split(collection, FitConfig(validation_share=1.0))
