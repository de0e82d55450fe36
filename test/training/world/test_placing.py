from dataclasses import replace

import numpy as np
import pytest

from training.world.compositing import Canvas, Patch
from training.world.placing import GAP, Painter
from training.world.scene import WorldConfig

ALWAYS_COVERED = replace(WorldConfig(), occluded_share=2.0, shadow_share=0.0)  # half for each way of covering
NEVER_COVERED = replace(WorldConfig(), occluded_share=0.0)


def square(side):
    return Patch(np.full((side, side, 3), 200, np.uint8), np.full((side, side), 255, np.uint8))


def painter(config, seed=0, side=100):
    return Painter(np.random.default_rng(seed), Canvas(np.zeros((side, side, 3), np.uint8)), config)


def test_free_objects_keep_apart():
    for seed in range(20):
        artist = painter(NEVER_COVERED, seed)
        placed = [artist.place(f"{k}", square(15)) for k in range(8)]
        found = artist.objects()
        assert [o.name for o in found] == [f"{k}" for k in range(8) if placed[k]]
        for i, o in enumerate(found):
            assert o.area == o.box.area == 225 and o.box.clip(100, 100) == o.box
            for other in found[:i]:
                a, b = o.box, other.box
                assert max(a.x1 - b.x2, b.x1 - a.x2, a.y1 - b.y2, b.y1 - a.y2) >= GAP


@pytest.mark.parametrize(("side", "fits"), [(100, True), (101, False)])
def test_what_does_not_fit_is_not_drawn(side, fits):
    artist = painter(NEVER_COVERED)
    assert artist.place("key", square(side)) is fits
    assert len(artist.objects()) == fits
    assert artist.place("cup", square(90)) is not fits


def test_a_later_object_lies_in_front_and_leaves_enough_to_see():
    covered = 0
    for seed in range(40):
        artist = painter(ALWAYS_COVERED, seed)
        for k in range(5):
            artist.place(f"{k}", square(20))
        areas = [o.area for o in artist.objects()]
        assert min(areas) >= 0.6 * 400 and areas[-1] == 400
        covered += min(areas) < 400
    assert covered > 30


def test_a_cover_hides_a_part_of_the_newest_object():
    hidden = 0
    for seed in range(40):
        artist = painter(ALWAYS_COVERED, seed)
        artist.place("key", square(20))
        artist.cover(lambda rng, area: square(round(area**0.5)))
        (found,) = artist.objects()
        assert 0.6 * 400 <= found.area <= 400 and found.area <= found.box.area <= 400
        hidden += found.area < 400
    assert hidden > 20


def test_no_cover_when_none_is_asked():
    artist = painter(NEVER_COVERED)
    artist.place("key", square(20))
    artist.cover(lambda rng, area: pytest.fail("asked for an occluder"))
    assert artist.objects()[0].area == 400
