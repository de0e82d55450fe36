from dataclasses import replace

import numpy as np
import pytest

from training.world.scene import SHIFTED_CONFIG, SPLIT_SEEDS
from training.world.sprites import category_names
from training.world.world import World, WorldConfig


@pytest.fixture(scope="module")
def worlds():
    return {split: World(split) for split in SPLIT_SEEDS}


@pytest.fixture(scope="module")
def scenes(worlds):
    return [worlds["train"].scene([1, k]) for k in range(120)]


@pytest.mark.parametrize("split", SPLIT_SEEDS)
def test_a_seed_gives_one_picture(worlds, split):
    one, same, other = (world.scene([3, k]) for world, k in ((worlds[split], 7), (World(split), 7), (worlds[split], 8)))
    assert (one.image == same.image).all() and one.objects == same.objects
    assert one.image.shape != other.image.shape or (one.image != other.image).any()


def test_splits_share_names_but_no_scenes(worlds):
    assert {world.names for world in worlds.values()} == {category_names()}
    pictures = [world.scene([1, 1], size=(128, 128)).image for world in worlds.values()]
    for i, a in enumerate(pictures):
        assert all((a != b).mean() > 0.5 for b in pictures[:i])


def test_boxes_are_whole_pixels_inside_the_picture(scenes):
    for scene in scenes:
        height, width = scene.image.shape[:2]
        assert (width, height) in WorldConfig().shapes and scene.image.dtype == np.uint8
        for o in scene.objects:
            assert o.box.clip(width, height) == o.box and 0 < o.area <= o.box.area
            assert all(v == int(v) for v in (*o.box.as_tuple(), o.area))


def test_sizes_counts_and_repeats_are_as_configured(scenes):
    shares = np.array([o.box.area / s.image[..., 0].size for s in scenes for o in s.objects])
    assert 0.75 < ((shares >= 0.001) & (shares <= 0.01)).mean() < 0.92
    assert 0.03 < ((shares > 0.01) & (shares <= 0.05)).mean() < 0.2
    assert 0 < (shares > 0.05).mean() < 0.1
    counts = [len(s.objects) for s in scenes]
    assert min(counts) == 1 and max(counts) == 12
    repeated = [len({o.name for o in s.objects}) < len(s.objects) for s in scenes]
    assert 0.08 < np.mean(repeated) < 0.35


def test_every_category_appears(worlds):
    seen = {o.name for k in range(80) for o in worlds["shifted"].scene([2, k], (256, 256), (10, 12)).objects}
    assert seen == set(category_names())


def test_an_object_is_where_its_box_says():
    plain = replace(WorldConfig(), clutter=0, occluded_share=0.0, shadow_share=0.0, light=0.0, noise=(0.0, 0.0))
    world = World("test", plain)
    for k in range(15):
        full = world.scene([k], (200, 200), (1, 1))
        x1, y1, x2, y2 = (int(v) for v in full.objects[0].box.as_tuple())
        rng = np.random.default_rng([SPLIT_SEEDS["test"], k])
        empty = world._backgrounds.draw(rng, 200, 200)
        changed = (full.image != empty).any(axis=2)
        assert changed[y1:y2, x1:x2].mean() > 0.25
        changed[max(0, y1 - 4) : y2 + 4, max(0, x1 - 4) : x2 + 4] = False
        assert not changed.any()


@pytest.mark.parametrize("size", [(64, 64), (333, 127), (1024, 80)], ids=str)
@pytest.mark.parametrize("objects", [(1, 1), (4, 4)], ids=str)
def test_size_and_number_can_be_chosen(worlds, size, objects):
    scene = worlds["val"].scene([5], size=size, objects=objects)
    assert scene.image.shape == (size[1], size[0], 3)
    assert 1 <= len(scene.objects) <= objects[1]


def test_the_shifted_split_is_shifted(worlds):
    config = worlds["shifted"].config
    assert config == SHIFTED_CONFIG
    assert not set(config.shapes) & set(WorldConfig().shapes)
    assert config.jpeg_quality[1] < WorldConfig().jpeg_quality[0]
    assert worlds["test"].config == WorldConfig()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": (40, 300)}, "40 x 300 pixels"),
        ({"size": (300, 1025)}, "64 to 1024"),
        ({"objects": (0, 3)}, "0 to 3 objects"),
        ({"objects": (4, 3)}, "4 to 3 objects"),
    ],
)
def test_impossible_scenes_are_refused(worlds, arguments, message):
    with pytest.raises(ValueError, match=message):
        worlds["val"].scene([1], **arguments)


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="train, val, test, shifted"):
        World("dev")
