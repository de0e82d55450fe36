import numpy as np
import pytest

from acs_core.geometry import Box
from training.errors import DataError
from training.world.preview import annotate, contact_sheet, read_scenes
from training.world.scene import Scene, SceneObject
from training.world.synth import write_coco
from training.world.world import World

BOX = Box(20, 30, 40, 50)


def scene(box=BOX):
    return Scene(np.full((60, 80, 3), 90, np.uint8), (SceneObject("key", box, 300.0),))


@pytest.mark.parametrize("box", [BOX, Box(0, 0, 9, 9), Box(70, 50, 80, 60)], ids=str)
def test_the_box_is_drawn_around_the_object(box):
    drawn = annotate(scene(box=box), scale=4.0)
    assert drawn.shape == (240, 320, 3)
    x1, y1, x2, y2 = (round(4 * v) for v in box.as_tuple())
    assert (drawn[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2] == 90).mean() > 0.5, "the object stays visible"
    assert (drawn[max(0, y1 - 2) : y2 + 2, max(0, x1 - 2) : x2 + 2] == (255, 59, 48)).all(axis=2).any()


@pytest.mark.parametrize(("count", "columns", "shape"), [(1, 5, (100, 100)), (3, 2, (206, 206)), (5, 5, (100, 524))])
def test_scenes_stand_in_rows(count, columns, shape):
    assert contact_sheet([scene()] * count, columns, cell=100).shape == (*shape, 3)


@pytest.mark.parametrize(("scenes", "columns"), [([], 5), ([scene()], 0)])
def test_nothing_to_show_is_refused(scenes, columns):
    with pytest.raises(ValueError, match="at least 1"):
        contact_sheet(scenes, columns)


def test_written_scenes_are_read_back(tmp_path):
    file = write_coco(tmp_path, "val", 3)
    read = read_scenes(file, 2)
    drawn = [World("val").scene([77, k]) for k in range(2)]
    assert [s.objects for s in read] == [s.objects for s in drawn]
    for a, b in zip(read, drawn, strict=True):
        assert np.abs(a.image.astype(int) - b.image).mean() < 6


def test_a_missing_picture_is_named(tmp_path):
    file = write_coco(tmp_path, "val", 1)
    (tmp_path / "images" / "val_000000.jpg").unlink()
    with pytest.raises(DataError, match=r"val_000000\.jpg"):
        read_scenes(file)
