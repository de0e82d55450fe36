import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from training.world.compositing import (
    VISIBLE,
    Canvas,
    Patch,
    Pose,
    Stamp,
    colour_matrix,
    draw_shapes,
    pose_stamp,
    shape_patch,
)
from training.world.sprites import CLUTTER, NOTO, Sprite, load_sprites

AS_IT_IS = np.eye(3, 4)
STAMPS = [Stamp.of(s) for s in (*load_sprites(NOTO), *load_sprites(CLUTTER))]


def frame(mask):
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1


def square(side, value=200):
    return Patch(np.full((side, side, 3), value, np.uint8), np.full((side, side), 255, np.uint8))


@settings(max_examples=150)
@given(
    stamp=st.sampled_from(STAMPS),
    area=st.floats(120, 8000),
    tilt=st.floats(-np.pi, np.pi),
    stretch=st.floats(0.85, 1.15),
    mirror=st.booleans(),
)
def test_the_tight_box_has_the_asked_area(stamp, area, tilt, stretch, mirror):
    patch = pose_stamp(stamp, Pose(area, 8, tilt, stretch, mirror, AS_IT_IS))
    x1, y1, x2, y2 = frame(patch.mask)
    w, h = x2 - x1, y2 - y1
    # thin parts fade below half alpha at small sizes, so a side may lose three pixels, five with a thin tail; it never
    # gains more than one
    lost, margin = (6, 12) if stamp.name in ("kite", "balloon") else (3.5, 10)
    assert (max(w, h) - 1) * (min(w, h) - 1) <= max(area, 64 * max(w, h) / min(w, h) * 1.6)
    assert (w + lost) * (h + lost) >= area
    assert patch.alpha.shape[0] - h <= margin and patch.alpha.shape[1] - w <= margin


@settings(max_examples=40)
@given(arrays(np.uint8, st.tuples(st.integers(2, 9), st.integers(2, 9)), elements=st.sampled_from([0, VISIBLE])))
def test_the_hull_is_that_of_all_visible_pixels(alpha):
    assume(alpha.any())
    height, width = alpha.shape
    ys, xs = np.nonzero(alpha)
    corners = np.concatenate([np.stack([xs + i, ys + j], axis=1) for i in (0, 1) for j in (0, 1)])
    expected = cv2.convexHull(corners.astype(np.float32))[:, 0] - [width / 2, height / 2]
    found = Stamp.of(Sprite("", np.dstack([np.zeros((height, width, 3), np.uint8), alpha]))).hull
    assert sorted((found * max(height, width)).round(3).tolist()) == sorted(expected.tolist())


def test_a_mirrored_stamp_is_the_mirror_image():
    stamp = next(s for s in STAMPS if s.name == "bird")
    plain, mirrored = (pose_stamp(stamp, Pose(900, 8, 0.0, 1.0, m, AS_IT_IS)) for m in (False, True))
    assert np.abs(plain.alpha[:, ::-1].astype(int) - mirrored.alpha).mean() < 3
    assert np.abs(plain.alpha.astype(int) - mirrored.alpha).mean() > 20


def test_a_small_stamp_keeps_its_shortest_side():
    stamp = next(s for s in STAMPS if s.name == "toothbrush")
    x1, y1, x2, y2 = frame(pose_stamp(stamp, Pose(4, 12, 0.3, 1.0, False, AS_IT_IS)).mask)
    assert min(x2 - x1, y2 - y1) >= 9


def test_colours_stay_premultiplied():
    rng = np.random.default_rng(0)
    for stamp in STAMPS[:20]:
        patch = pose_stamp(stamp, Pose(700, 8, 0.2, 1.0, False, colour_matrix(rng, 1.0)))
        assert (patch.rgb <= patch.alpha[..., None]).all()
    assert colour_matrix(rng, 0.0) == pytest.approx(AS_IT_IS)


@pytest.mark.parametrize(("x", "y", "visible"), [(3, 4, 36), (-2, 0, 24), (7, 7, 9), (-6, 0, 0), (20, 20, 0)], ids=str)
def test_put_cuts_off_at_the_borders(x, y, visible):
    canvas = Canvas(np.zeros((10, 10, 3), np.uint8))
    canvas.put(square(6), x, y, 5)
    assert (canvas.owner == 5).sum() == visible
    assert ((canvas.image == 200).all(axis=2) == (canvas.owner == 5)).all()


def test_what_lies_in_front_takes_the_pixels():
    canvas = Canvas(np.zeros((12, 12, 3), np.uint8))
    canvas.put(square(6), 0, 0, 1)
    assert canvas.covered(square(4), 4, 4, 2).tolist() == [12, 4, 0]
    canvas.put(square(4, 90), 4, 4, 2)
    assert [(canvas.owner == k).sum() for k in (1, 2)] == [32, 16]
    assert canvas.image[5, 5, 0] == 90


def test_a_shadow_darkens_without_owning():
    canvas = Canvas(np.full((30, 30, 3), 200, np.uint8))
    canvas.shade(square(8), 10, 10, 0.5, 2.0)
    assert canvas.image[14, 14, 0] < 130 and canvas.image[0, 0, 0] == 200
    assert not canvas.owner.any()


def test_a_half_transparent_pixel_mixes():
    canvas = Canvas(np.full((1, 1, 3), 100, np.uint8))
    canvas.put(Patch(np.full((1, 1, 3), 60, np.uint8), np.full((1, 1), VISIBLE - 1, np.uint8)), 0, 0, 3)
    assert canvas.image[0, 0, 0] == pytest.approx(60 + 100 * (256 - VISIBLE) / 255, abs=1)
    assert canvas.owner[0, 0] == 0


def test_shapes_change_the_picture_and_none_leaves_it():
    image = np.full((120, 160, 3), 128, np.uint8)
    draw_shapes(np.random.default_rng(0), image, 0)
    assert (image == 128).all()
    draw_shapes(np.random.default_rng(0), image, 6)
    assert 0 < (image != 128).any(axis=2).mean() < 1


@pytest.mark.parametrize("area", [1, 50, 400, 3000])
def test_a_piece_fits_its_area(area):
    for seed in range(10):
        patch = shape_patch(np.random.default_rng(seed), area)
        assert patch.alpha.shape[0] * patch.alpha.shape[1] <= max(9, area * 1.2)
        assert patch.mask.any() and (patch.rgb <= patch.alpha[..., None]).all()
