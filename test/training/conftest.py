"""A made-up collection whose attention knows the IoU: head (1, 0) is the more concentrated, the better the box."""

from dataclasses import replace

import numpy as np
import pytest

from acs_core.identity import ModelIdentity
from training.fit import FitConfig, fit
from training.quantise import encode
from training.steps import fit_step
from training.store import Part, open_store, read_store, write_part

LAYERS, HEADS, SIDE, TELLING = 3, 2, 4, (1, 0)
IDENTITY = ModelIdentity("made-up", "internvl", LAYERS, HEADS)


def made_up(folder, pairs=60, per_pair=5, seed=0, temperature=1.0):
    """Writes the collection into ``folder``, in three parts, and reads it back."""
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
    pair = np.repeat(np.arange(pairs), per_pair)
    response = np.tile(np.arange(per_pair), pairs)
    columns = (iou, *corner.T, *(corner + 10).T, pair, pair, response, np.zeros(count))
    fixed = np.tile([100, 100, SIDE, SIDE, 1, 2, 3, 4], (count, 1))
    rows = np.concatenate([np.stack(columns, axis=1), fixed], axis=1)
    model = {**IDENTITY.to_dict(), "weights": ""}
    kinds = ["small" if i % 2 else "large" for i in range(pairs)]
    keys = [f"{i}:key" for i in range(pairs)]
    manifest = {"model": model, "temperature": temperature, "pairs": keys, "kinds": kinds, "data": f"made-up {seed}"}
    best = [here[np.argmax(iou[here])] for here in (np.flatnonzero(pair == i) for i in range(pairs))]
    manifest["truth"] = [[[*corner[i].tolist(), *(corner[i] + 10).tolist()]] for i in best]
    open_store(folder, manifest | {"versions": {"acs_ros": "0"}, "dtype": "float32"})
    for number, asked in enumerate(np.array_split(np.arange(pairs), 3)):
        here = np.flatnonzero(np.isin(pair, asked))
        codes, unit = encode(maps[here].reshape(-1, LAYERS, HEADS, SIDE, SIDE))
        place = np.arange(4 * len(here), dtype=np.int32).reshape(-1, 4)
        write_part(folder, number, Part(codes, unit, place, entropy[here], rows[here], tuple(asked.tolist()), {}, ()))
    return read_store(folder)


@pytest.fixture(scope="session")
def collection_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made-up")
    made_up(folder)
    return folder


@pytest.fixture(scope="session")
def collection(collection_folder):
    return read_store(collection_folder)


@pytest.fixture(scope="session")
def fresh_collection(tmp_path_factory):
    return made_up(tmp_path_factory.mktemp("fresh"), seed=1, temperature=0.5)


@pytest.fixture(scope="session")
def identity():
    return IDENTITY


@pytest.fixture(scope="session")
def telling_head():
    return TELLING


@pytest.fixture(scope="session")
def fitted(collection):
    return fit(collection, FitConfig(epochs=10))


@pytest.fixture(scope="session")
def files(collection, fresh_collection, tmp_path_factory):
    """The folder of a fit, with regressor and joint quality, and its result."""
    out = tmp_path_factory.mktemp("files")
    fitted = fit_step(collection, out, FitConfig(epochs=3), "test", {"fresh": fresh_collection}, say=lambda text: None)
    return out, fitted


@pytest.fixture(scope="session")
def strange(collection):
    """The collection, as if of another model."""
    other = ModelIdentity("other", "internvl", LAYERS, HEADS).to_dict()
    return replace(collection, manifest=collection.manifest | {"model": other})
