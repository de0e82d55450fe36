import numpy as np
import pytest

from training.world.backgrounds import BANKS, Backgrounds, Grain, light
from training.world.textures import FAMILIES, SHIFTED_FAMILIES


@pytest.fixture(scope="module")
def banks():
    return {split: Backgrounds(split) for split in BANKS}


def test_no_two_splits_share_a_source(banks):
    seeds = [bank.seed for bank in BANKS.values()]
    assert len(set(seeds)) == len(seeds)
    assert not set(FAMILIES) & set(SHIFTED_FAMILIES)
    assert BANKS["shifted"].families == SHIFTED_FAMILIES
    firsts = [b.source(k) for b in banks.values() for k in range(3)]
    for i, a in enumerate(firsts):
        assert all((a != b).mean() > 0.5 for b in firsts[:i])


@pytest.mark.parametrize("split", BANKS)
@pytest.mark.parametrize("size", [(360, 360), (300, 420), (640, 480), (64, 1000)], ids=str)
def test_a_background_has_the_asked_size_and_follows_its_seed(banks, split, size):
    one, same, other = (banks[split].draw(np.random.default_rng(seed), *size) for seed in (4, 4, 5))
    assert one.shape == (size[1], size[0], 3) and one.dtype == np.uint8
    assert (one == same).all() and (one != other).any()


def test_backgrounds_differ_widely(banks):
    means = [banks["val"].draw(np.random.default_rng(k), 80, 80).mean(axis=(0, 1)) for k in range(30)]
    assert np.std(means, axis=0).min() > 15


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="train, val, test, shifted"):
        Backgrounds("dev")


def test_grain_has_the_asked_strength_and_no_tint():
    grey = np.full((300, 200, 3), 128, np.uint8)
    for sigma in (0.0, 3.0, 12.0):
        noisy = Grain().add(np.random.default_rng(1), grey, sigma)
        assert noisy.std() == pytest.approx(sigma, abs=0.6)
        assert noisy.mean() == pytest.approx(128, abs=0.3)


def test_light_changes_places_unequally():
    grey = np.full((120, 200, 3), 120, np.uint8)
    lit = light(np.random.default_rng(2), grey, 0.2)
    assert lit.shape == grey.shape and lit.std() > 5
    assert light(np.random.default_rng(2), grey, 0.0).std() == 0
