"""Entropy of maps, equation 3."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from acs_core.entropy import entropy, row_entropy

CASES = [
    ("one cell", [[0.0, 3.0], [0.0, 0.0]], 0.0),
    ("even", [[0.1, 0.1], [0.1, 0.1]], math.log(4)),
    ("two cells", [[0.5, 0.5], [0.0, 0.0]], math.log(2)),
    ("no mass", [[0.0, 0.0], [0.0, 0.0]], math.log(4)),
    ("by hand", [[1.0, 3.0], [0.0, 0.0]], -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))),
]


@pytest.mark.parametrize(("maps", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_known_maps(maps, expected):
    assert entropy(np.array(maps)) == pytest.approx(expected, abs=1e-12)
    assert row_entropy(torch.tensor(maps).flatten()).item() == pytest.approx(expected, abs=1e-6)


def test_leading_axes_are_kept():
    maps = np.random.default_rng(0).random((2, 4, 3, 5, 6))
    assert entropy(maps).shape == (2, 4, 3)
    assert entropy(maps)[1, 2, 0] == pytest.approx(float(entropy(maps[1, 2, 0])))


@settings(max_examples=50)
@given(arrays(np.float32, (3, 4), elements=st.floats(0, 1, width=32)), st.floats(0.01, 100))
def test_bounds_and_scale(maps, factor):
    value = float(entropy(maps))
    assert -1e-9 <= value <= math.log(12) + 1e-9
    assert float(entropy(maps * np.float64(factor))) == pytest.approx(value, abs=1e-6)
    assert row_entropy(torch.tensor(maps).flatten()).item() == pytest.approx(value, abs=1e-4)
