"""A made-up collection whose attention knows the IoU: head (1, 0) is the more concentrated, the better the box."""

from dataclasses import replace

import pytest
from made_up_parts import HEADS, IDENTITY, LAYERS, TELLING, made_up

from acs_core.artifacts.identity import ModelIdentity
from training.collection.store import read_store
from training.fitting.fit import FitConfig, fit
from training.fitting.steps import fit_step


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
    """The folder of a fit, with regressor and joint model, and its result."""
    out = tmp_path_factory.mktemp("files")
    fitted = fit_step(collection, out, FitConfig(epochs=3), "test", {"fresh": fresh_collection}, say=lambda text: None)
    return out, fitted


@pytest.fixture(scope="session")
def strange(collection):
    """The collection, as if of another model."""
    other = ModelIdentity("other", "internvl", LAYERS, HEADS).to_dict()
    return replace(collection, manifest=collection.manifest | {"model": other})
