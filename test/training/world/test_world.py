from dataclasses import replace

import numpy as np
import pytest

from acs_core.geometry import Box
from training.world.colours import COLOURS, PAINTED
from training.world.scene import SHIFTED_CONFIG, SPLIT_SEEDS, WORLD_VERSION, SceneObject
from training.world.sprites import category_names
from training.world.world import World, WorldConfig, world_config


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


@pytest.mark.parametrize(
    ("split", "number", "light", "count", "last"),
    [
        ("train", 0, 163.403, 9, SceneObject("bus", Box(17, 117, 39, 135), 257.0)),
        ("train", 2, 181.123, 9, SceneObject("pizza", Box(184, 394, 197, 406), 94.0)),
        ("shifted", 1, 42.653, 7, SceneObject("train", Box(315, 246, 368, 303), 2107.0)),
    ],
)
def test_scenes_are_those_of_world_version_2(worlds, split, number, light, count, last):
    """The shipped weights, the demo bag and all numbers of the docs rest on these images."""
    scene = worlds[split].scene([9, number])
    assert WORLD_VERSION == 2 and scene.image.mean() == pytest.approx(light, abs=0.01)
    assert len(scene.objects) == count and scene.objects[-1] == last


def test_in_crowded_scenes_objects_of_a_category_differ_in_colour():
    world = World("val", world_config("val", crowds=True))
    scenes = [world.scene([4, k], (360, 360)) for k in range(60)]
    assert np.mean([len(s.objects) for s in scenes]) > 11 and max(len(s.objects) for s in scenes) <= 20
    painted = [(s, o) for s in scenes for o in s.objects if o.colour]
    assert 0.3 < len({id(s) for s, _ in painted}) / len(scenes) < 0.7 and {o.colour for _, o in painted} == set(COLOURS)
    for scene, o in painted:
        assert o.name in PAINTED
        assert sum((other.name, other.colour) == (o.name, o.colour) for other in scene.objects) == 1
        assert all(other.colour for other in scene.objects if other.name == o.name)


@pytest.mark.parametrize("colour", COLOURS)
def test_paint_looks_like_its_word(colour):
    """In any light, black is dark, and of the others the nearest to the middle of a painted cup is its own."""
    world, bright = World("train"), {name: np.array(c) / max(c) for name, c in COLOURS.items() if name != "black"}
    for k in range(8):
        patch = world._patch(np.random.default_rng(k), world._stamps["cup"][0], 360 * 360, colour=colour)
        seen = np.median(patch.rgb[patch.alpha == 255], axis=0)
        far = {name: np.abs(seen / seen.max() - c).sum() for name, c in bright.items()}
        assert seen.max() < 60 if colour == "black" else (seen.max() > 60 and min(far, key=far.get) == colour)


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
