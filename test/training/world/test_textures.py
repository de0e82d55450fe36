import numpy as np
import pytest

from training.world.textures import FAMILIES, SHIFTED_FAMILIES, SIDE


@pytest.mark.parametrize("family", FAMILIES + SHIFTED_FAMILIES, ids=lambda f: f.__name__)
def test_a_texture_is_a_picture_with_structure_that_follows_its_seed(family):
    one, same, other = (family(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.shape == (SIDE, SIDE, 3) and one.dtype == np.float32
    assert np.isfinite(one).all() and 0 < one.mean() < 255
    assert (one == same).all() and np.abs(one - other).mean() > 1
    assert one.std(axis=(0, 1)).min() > 0.5
