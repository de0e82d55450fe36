import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.collection.part_arrays import LEVELS, STEP, decode, decode_on_device, encode, step_share


def step_of(maps):
    """The step of the square roots of the weights of each map."""
    roots = np.sqrt(maps)
    deviation = roots.std(axis=(-2, -1), keepdims=True)
    return np.maximum(roots.max(axis=(-2, -1), keepdims=True) / LEVELS, step_share(maps.shape[-2:]) * deviation)


@given(st.integers(0, 1000), st.floats(1e-6, 1.0))
def test_weights_come_back_within_a_step_of_their_square_root_and_maps_with_their_sum(seed, largest):
    maps = np.random.default_rng(seed).random((3, 2, 5, 4)).astype(np.float32) ** 4 * np.float32(largest)
    codes, unit = encode(maps)
    back = decode(codes, unit)
    assert codes.dtype == np.uint8 and codes.max() <= LEVELS
    np.testing.assert_allclose(back.sum(axis=(-2, -1)), maps.sum(axis=(-2, -1)), rtol=1e-5)
    # Half a step of rounding, and what the unit does to keep the sum: at most as much at the largest weight.
    assert (np.abs(np.sqrt(back) - np.sqrt(maps)) <= step_of(maps) * 1.01).all()


def test_a_map_of_nearly_equal_weights_keeps_their_differences():
    maps = (1 + np.random.default_rng(0).normal(size=(1, 24, 24)).clip(-2, 2) * 0.1).astype(np.float32) / 576
    back = decode(*encode(maps))
    assert np.corrcoef(back.ravel(), maps.ravel())[0, 1] > 0.98


def test_a_sharp_map_uses_all_codes_and_small_maps_have_smaller_steps():
    peak = np.full((1, 24, 24), 1e-6, np.float32)
    peak[0, 3, 4] = 0.9
    assert encode(peak)[0].max() < LEVELS < 1 + encode(peak[:, :4, :5])[0].max()
    assert step_share((12, 12)) == STEP / 4 and step_share((64, 64)) == STEP


def test_a_map_of_nothing_stays_nothing():
    codes, unit = encode(np.zeros((1, 3, 3), np.float32))
    assert not codes.any() and not decode(codes, unit).any()


@pytest.mark.parametrize("shape", [(2, 4, 3, 2, 4, 4), (1, 4, 1, 1, 2, 3)])
def test_the_device_decodes_alike(shape):
    codes, unit = encode(np.random.default_rng(0).random(shape).astype(np.float32))
    on_device = decode_on_device(torch.from_numpy(codes), torch.from_numpy(unit)).numpy()
    np.testing.assert_allclose(on_device, decode(codes, unit), rtol=1e-5)
