from dataclasses import replace

import numpy as np
import pytest

from training.errors import DataError
from training.fit import FitConfig, fit, predict, split_by_image
from training.store import Collection


def first(data: Collection, count: int) -> Collection:
    arrays = {k: v[:count] for k, v in vars(data).items() if isinstance(v, np.ndarray)}
    return replace(data, **arrays)


def test_no_image_is_on_both_sides():
    images = np.repeat(np.arange(50), 7)
    train, validation = split_by_image(images, 0.2, seed=3)
    assert len(train) + len(validation) == len(images)
    assert not set(images[train]) & set(images[validation]) and len(set(images[validation])) == 10


def test_the_regressor_learns_what_attention_shows(fitted, fresh_collection):
    assert fitted.pearson > 0.8
    guess = predict(fitted.regressor, fresh_collection, np.arange(len(fresh_collection.iou)))
    assert np.corrcoef(guess, fresh_collection.iou)[0, 1] > 0.8
    assert ((guess >= 0) & (guess <= 1)).all()


def test_it_stops_when_nothing_improves(collection):
    noise = replace(collection, iou=np.random.default_rng(5).random(len(collection.iou)).astype(np.float32))
    seen = []
    result = fit(noise, FitConfig(epochs=20, patience=2), lambda epoch, loss, held: seen.append(epoch))
    assert result.epochs < 20
    assert seen == list(range(1, result.epochs + 1))


def test_small_steps_add_up_to_an_improvement(collection, monkeypatch):
    losses = iter(0.2 - 0.0004 * k for k in range(100))
    truth = collection.iou

    def falling(regressor, data, index, batch=256):
        return truth[index] + np.sqrt(next(losses))

    monkeypatch.setattr("training.fit.predict", falling)
    tiny_steps = FitConfig(epochs=8, patience=3, batch=256)
    assert fit(collection, tiny_steps).epochs == 8, "0.0004 an epoch is 0.001 every third epoch: it goes on"


def test_too_little_data_is_said(collection):
    with pytest.raises(DataError, match="too few"):
        fit(first(collection, 30))
