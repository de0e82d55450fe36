import numpy as np
import pytest

from training.clutter import draw_shapes, shape_patch


def test_shapes_change_the_picture_and_none_leaves_it():
    image = np.full((120, 160, 3), 128, np.uint8)
    draw_shapes(np.random.default_rng(0), image, 0)
    assert (image == 128).all()
    draw_shapes(np.random.default_rng(0), image, 6)
    assert 0 < (image != 128).any(axis=2).mean() < 1


@pytest.mark.parametrize("area", [1, 50, 400, 3000])
def test_a_piece_fits_its_area(area):
    for seed in range(10):
        patch = shape_patch(np.random.default_rng(seed), area)
        assert patch.alpha.shape[0] * patch.alpha.shape[1] <= max(9, area * 1.2)
        assert patch.mask.any() and (patch.rgb <= patch.alpha[..., None]).all()
