import numpy as np
import pytest
from made_up_parts import IDENTITY, LAYERS, SIDE, made_up

from training.collection.maps import StoredMaps
from training.errors import DataError
from training.fitting.box_layers import find_box_layers


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    return made_up(tmp_path_factory.mktemp("store"), pairs=30)


class Looking(StoredMaps):
    """Attention that falls on the own box as much as the box is good, in some layers; elsewhere it is even."""

    def __init__(self, data, layers):
        self.data, self.layers = data, layers

    shape = property(lambda self: (len(self.data.iou), 4, LAYERS, 2, SIDE, SIDE))

    def __getitem__(self, index):
        maps = np.ones((len(index), 4, LAYERS, 2, SIDE, SIDE), np.float32)
        for row, i in enumerate(index):
            x, y = ((self.data.box[i, :2] + 5) / 100 * SIDE).astype(int)
            for layer, strength in self.layers.items():
                maps[row, :, layer, :, y, x] += strength * self.data.iou[i]
        return maps


def with_maps(data, layers):
    object.__setattr__(data, "maps", Looking(data, layers))
    return data


@pytest.mark.parametrize(("told", "found"), [({1: 40.0}, (1,)), ({0: -0.9, 2: 40.0}, (2,))])
def test_the_layers_that_look_at_good_boxes_are_found(collection, told, found):
    file = find_box_layers(with_maps(collection, told), "test")
    assert (file.layers, file.identity, file.map_size, file.made_by) == (found, IDENTITY, (SIDE, SIDE), "test")
    assert file.chosen_iou[found[0]] == max(file.chosen_iou) > min(file.chosen_iou) + 0.1


def test_layers_join_where_they_help(collection):
    """Two layers, each of which knows half of the pairs, choose better together."""

    class Halves(Looking):
        def __getitem__(self, index):
            maps = super().__getitem__(index)
            even = self.data.pair[index] % 2 == 0
            maps[even, :, 0], maps[~even, :, 2] = 1.0, 1.0
            return maps

    object.__setattr__(collection, "maps", Halves(collection, {0: 40.0, 2: 40.0}))
    file = find_box_layers(collection)
    assert file.layers == (0, 2)


def test_too_few_pairs_are_said(tmp_path):
    with pytest.raises(DataError, match="6 pairs have boxes to choose between, at least 10"):
        find_box_layers(made_up(tmp_path, pairs=6))
