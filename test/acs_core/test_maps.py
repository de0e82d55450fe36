"""Maps keep their mass and their place on another grid."""

import numpy as np
import pytest
import torch

from acs_core.maps import resize_maps


def test_resizing_maps():
    maps = torch.arange(24.0).view(1, 4, 6)
    assert resize_maps(maps, (4, 6)) is maps
    halved = resize_maps(maps, (2, 3))
    # Area averaging times 4, since four cells' mass goes into one.
    assert torch.allclose(halved[0, 0], torch.tensor([0.0 + 1 + 6 + 7, 2.0 + 3 + 8 + 9, 4.0 + 5 + 10 + 11]))
    spot = torch.zeros(1, 4, 6)
    spot[0, 3, 1] = 0.5
    for size in ((8, 12), (2, 3), (3, 9), (24, 24)):
        sized = resize_maps(spot, size)
        assert sized.sum().item() == pytest.approx(0.5)
        row, column = np.unravel_index(int(sized.argmax()), size)
        assert ((row + 0.5) / size[0], (column + 0.5) / size[1]) == pytest.approx((3.5 / 4, 1.5 / 6), abs=0.13)
    assert torch.equal(resize_maps(torch.zeros(2, 4, 6), (3, 3)), torch.zeros(2, 3, 3))
