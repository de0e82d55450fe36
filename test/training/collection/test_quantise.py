import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.collection.part_arrays import LEVELS, decode, decode_on_device, encode


@given(st.integers(0, 1000), st.floats(1e-6, 1.0))
def test_weights_come_back_within_half_a_step_of_their_square_root_and_maps_with_their_sum(seed, largest):
    maps = np.random.default_rng(seed).random((3, 2, 5, 4)).astype(np.float32) ** 4 * np.float32(largest)
    codes, unit = encode(maps)
    back = decode(codes, unit)
    assert codes.dtype == np.uint8 and codes.max() == LEVELS
    np.testing.assert_allclose(back.sum(axis=(-2, -1)), maps.sum(axis=(-2, -1)), rtol=1e-5)
    step = np.sqrt(maps.max(axis=(-2, -1), keepdims=True)) / LEVELS
    # Half a step of rounding, and what the unit does to keep the sum: at most as much at the largest weight.
    assert (np.abs(np.sqrt(back) - np.sqrt(maps)) <= step * 1.01).all()


def test_a_map_of_nothing_stays_nothing():
    codes, unit = encode(np.zeros((1, 3, 3), np.float32))
    assert not codes.any() and not decode(codes, unit).any()


@pytest.mark.parametrize("shape", [(2, 4, 3, 2, 4, 4), (1, 4, 1, 1, 2, 3)])
def test_the_device_decodes_alike(shape):
    codes, unit = encode(np.random.default_rng(0).random(shape).astype(np.float32))
    on_device = decode_on_device(torch.from_numpy(codes), torch.from_numpy(unit)).numpy()
    np.testing.assert_allclose(on_device, decode(codes, unit), rtol=1e-5)
