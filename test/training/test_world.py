import numpy as np
import pytest

from training.sprites import load_sprites
from training.world import WorldConfig, render_scene


@pytest.fixture(scope="module")
def scenes():
    sprites, config = load_sprites(), WorldConfig()
    return [render_scene(np.random.default_rng(seed), sprites, config) for seed in range(60)]


def test_a_seed_gives_one_picture():
    sprites, config = load_sprites(), WorldConfig()
    a, b, c = (render_scene(np.random.default_rng(seed), sprites, config) for seed in (7, 7, 8))
    assert (a.image == b.image).all() and a.objects == b.objects
    assert (a.image != c.image).any()


def test_boxes_lie_in_the_picture_and_apart_from_each_other(scenes):
    for scene in scenes:
        height, width = scene.image.shape[:2]
        for i, o in enumerate(scene.objects):
            assert o.box.clip(width, height) == o.box
            assert all(o.box.iou(other.box) == 0 for other in scene.objects[:i])


def test_an_object_is_where_its_box_says():
    sprites, config = load_sprites(), WorldConfig(min_objects=1, max_objects=1)
    for seed in range(20):
        scene = render_scene(np.random.default_rng(seed), sprites, config)
        box = scene.objects[0].box
        x1, y1, x2, y2 = (int(v) for v in box.as_tuple())
        assert 0.15 * box.area < scene.objects[0].area <= box.area
        inside = scene.image[y1:y2, x1:x2].astype(float)
        frame = scene.image[max(0, y1 - 3) : y2 + 3, max(0, x1 - 3) : x2 + 3].astype(float)
        assert inside.std() > 0 and frame.shape[0] > inside.shape[0]


def test_most_objects_are_small_and_scenes_hold_one_to_four(scenes):
    area = scenes[0].image.shape[0] * scenes[0].image.shape[1]
    shares = np.array([o.box.area / area for s in scenes for o in s.objects])
    assert 0.6 < ((shares >= 0.0005) & (shares <= 0.0105)).mean() < 0.98
    assert {len(s.objects) for s in scenes} <= {1, 2, 3, 4}
    names = [[o.name for o in s.objects] for s in scenes]
    assert any(len(set(n)) < len(n) for n in names), "some scene repeats a category"
