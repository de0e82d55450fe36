"""Small random models, made once."""

import numpy as np
import pytest

KINDS = {
    "internvl": {},
    "internvl-tiles": {"max_patches": 6, "text_model": "qwen2", "seed": 1},
    "qwen2_vl": {},
    "qwen2_5_vl": {},
    "qwen3_vl": {},
}


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory):
    """Folders of random models by kind: internvl (one tile, Qwen3), internvl-tiles (tiles and a thumbnail, Qwen2), and
    one of each other family."""
    import tiny_models

    return {
        kind: tiny_models.SAVERS[kind.split("-")[0]](tmp_path_factory.mktemp(kind), **options)
        for kind, options in KINDS.items()
    }


@pytest.fixture(scope="session", params=KINDS)
def lvlm(request, model_folders):
    """A loaded random model of each kind in turn."""
    from acs_core.lvlm import load_lvlm

    return load_lvlm(model_folders[request.param], device="cpu")


@pytest.fixture(scope="session")
def picture():
    """A random RGB picture, 150 wide and 90 high."""
    return np.random.default_rng(0).integers(0, 256, (90, 150, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A model folder with everything a selector may want."""
    import grounder_parts

    return grounder_parts.save_complete(tmp_path_factory.mktemp("models") / "random-internvl")


@pytest.fixture(scope="session")
def grounders(folder):
    """Makes a Grounder of that folder, each kind once."""
    from acs_core.grounder import Grounder

    cache = {}

    def get(selector="acs-free", **options):
        key = (selector, tuple(options.items()))
        if key not in cache:
            cache[key] = Grounder.from_pretrained(folder, selector=selector, device="cpu", **options)
        return cache[key]

    return get


@pytest.fixture
def answers(monkeypatch):
    """Makes models answer the given texts, token by token, instead of drawing."""
    import grounder_parts

    return lambda *texts: grounder_parts.force(monkeypatch, texts)


@pytest.fixture
def grounder(monkeypatch):
    """A recording stand-in for Grounder, as acs-ground makes one."""
    from ground_command_parts import RecordingGrounder

    import acs_core.grounder

    fake = RecordingGrounder()
    monkeypatch.setattr(acs_core.grounder, "Grounder", fake)
    return fake
