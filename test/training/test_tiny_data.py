import pytest

from training.scene import KEPT, TRAINING
from training.tiny.data import render
from training.world import World


@pytest.fixture(scope="module")
def pictures():
    return render(World("train"), TRAINING, range(3), (360, 360), (4, 6))


def test_pictures_are_known_by_their_numbers(pictures):
    again, kept = (render(World("train"), stream, [1], (360, 360), (4, 6)) for stream in (TRAINING, KEPT))
    assert (again.pixels[0] == pictures.pixels[1]).all() and again.objects[0] == pictures.objects[1]
    assert (kept.pixels[0] != pictures.pixels[1]).any()
    assert pictures.size == (360, 360) and all(1 <= len(o) <= 6 for o in pictures.objects)
