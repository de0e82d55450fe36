"""A made-up collection whose attention knows the IoU: head (1, 0) is the more concentrated, the better the box."""

import numpy as np
import pytest

from acs_core.identity import ModelIdentity
from training.fit import FitConfig, fit
from training.store import Collection

LAYERS, HEADS, SIDE, TELLING = 3, 2, 4, (1, 0)


def made_up(pairs=60, per_pair=5, seed=0):
    rng = np.random.default_rng(seed)
    count = pairs * per_pair
    iou = np.where(rng.random(count) < 0.2, 0.0, rng.random(count)).astype(np.float32)
    maps = rng.random((count, 4, LAYERS, HEADS, SIDE, SIDE)).astype(np.float32)
    peak = np.zeros((SIDE, SIDE), np.float32)
    peak[1, 2] = SIDE * SIDE
    maps[:, :, TELLING[0], TELLING[1]] += iou[:, None, None, None] * peak
    maps /= maps.sum(axis=(-2, -1), keepdims=True)
    entropy = -(maps * np.log(maps)).sum(axis=(-2, -1)).astype(np.float32)
    corner = rng.uniform(0, 80, (count, 2))
    return Collection(
        maps=maps.astype(np.float16),
        entropy=entropy,
        iou=iou,
        box=np.concatenate([corner, corner + 10], axis=1),
        pair=np.repeat(np.arange(pairs), per_pair),
        image=np.repeat(np.arange(pairs), per_pair),
        response=np.tile(np.arange(per_pair), pairs),
        order=np.zeros(count, int),
        image_size=np.full((count, 2), 100),
        grid=np.full((count, 2), SIDE),
        pairs=np.arange(pairs),
    )


@pytest.fixture(scope="session")
def collection():
    return made_up()


@pytest.fixture(scope="session")
def fresh_collection():
    return made_up(seed=1)


@pytest.fixture(scope="session")
def identity():
    return ModelIdentity("made-up", "internvl", LAYERS, HEADS)


@pytest.fixture(scope="session")
def telling_head():
    return TELLING


@pytest.fixture(scope="session")
def fitted(collection):
    return fit(collection, FitConfig(epochs=10))
