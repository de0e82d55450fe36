"""Pictures that are resized by operations on tensors have the pixels of Pillow's ``Image.resize``."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from acs_core.lvlm import device_resize
from acs_core.lvlm.device_resize import FILTERS, can_resize, order_of_passes, resize, taps

# (height, width) before and after.
SIZES = [
    ((480, 640), (476, 644)),  # fewer rows, more columns
    ((480, 640), (448, 448)),
    ((270, 480), (182, 336)),
    ((540, 960), (14, 28)),  # 40 pixels become one
    ((90, 150), (448, 896)),
    ((97, 61), (53, 47)),
    ((60, 60), (50, 55)),  # twice as many rows go as columns: not vertically first
    ((60, 60), (49, 55)),
    ((60, 60), (60, 31)),  # one pass
    ((60, 60), (31, 60)),
    ((60, 60), (60, 60)),  # none
    ((64, 1), (28, 28)),
    ((1, 64), (56, 3)),
    ((1, 1), (5, 7)),
    ((50, 70), (1, 1)),
]


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def gradient(height, width):
    """Soft light from a corner, with some noise, as in a photograph."""
    rows, columns = np.mgrid[:height, :width]
    light = 200 * np.exp(-((rows / height) ** 2) - (columns / width) ** 2)[..., None] * (1, 0.8, 0.6)
    grain = np.random.default_rng(1).normal(20, 4, (height, width, 3))
    return np.clip(light + grain, 0, 255).astype(np.uint8)


def checkerboard(height, width):
    rows, columns = np.mgrid[:height, :width]
    return np.repeat(((rows + columns) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)


def text(height, width):
    picture = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(picture).text((0, 0), "the key on the left\n" * 40, fill=(200, 0, 0))
    return np.array(picture)


def line(height, width):
    """A white line, one pixel wide, on black."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, width // 2] = 255
    return picture


@pytest.mark.parametrize("resample", sorted(FILTERS))
@pytest.mark.parametrize("draw", [noise, gradient, checkerboard, text, line])
@pytest.mark.parametrize(("before", "after"), SIZES)
def test_pixels_are_those_of_pillow(before, after, draw, resample):
    compare(draw(*before), after, resample)


sides = st.integers(1, 90)


@given(sides, sides, sides, sides, st.sampled_from(sorted(FILTERS)))
def test_all_sizes(height, width, to_height, to_width, resample):
    compare(noise(height, width), (to_height, to_width), resample)


@given(st.integers(2, 90), st.integers(2, 90), st.data())
def test_sizes_where_the_order_changes(height, width, data):
    to_height = data.draw(st.integers(1, height - 1))
    to_width = max(1, width - (height - to_height) // 2 + data.draw(st.integers(-1, 1)))
    compare(noise(height, width), (to_height, to_width), Image.Resampling.BICUBIC)


def compare(picture, size, resample):
    expected = np.asarray(Image.fromarray(picture).resize(size[::-1], resample))
    made = resize(torch.from_numpy(picture), *size, resample)
    assert made.dtype == torch.uint8 and made.shape == (*size, 3)
    np.testing.assert_array_equal(made.numpy(), expected)


def test_weights_are_computed_once_for_a_pair_of_sizes():
    arguments = (1234, 567, 3, torch.device("cpu"))
    made = taps(*arguments)
    assert taps(*arguments) is made
    assert (made.weight.sum(0) - 2**22).abs().max() <= len(made.weight)  # each is rounded
    assert made.index.min() == 0 and made.index.max() == 1233
    assert taps.cache_info().maxsize == device_resize.KEPT


class OtherPillow:
    """An Image module whose passes have an order of their own: each pass is a resizing along one axis."""

    def __init__(self, vertical_first, shift=0):
        self.vertical_first, self.shift = vertical_first, shift

    def fromarray(self, array):
        return OtherImage(Image.fromarray(array), self)


class OtherImage:
    def __init__(self, image, pillow):
        self.image, self.pillow = image, pillow

    def resize(self, size, resample):
        image = self.image
        first = (image.width, size[1]) if self.pillow.vertical_first else (size[0], image.height)
        return (np.asarray(image.resize(first, resample).resize(size, resample)) >> self.pillow.shift).astype(np.uint8)


@pytest.fixture
def pillow(monkeypatch):
    """Takes the place of the Image module; the true one is back afterwards."""

    def use(other):
        monkeypatch.setattr(device_resize, "Image", other)
        order_of_passes.cache_clear()

    yield use
    order_of_passes.cache_clear()


def test_pillow_before_13_begins_with_rows(pillow):
    pillow(OtherPillow(vertical_first=False))
    order = order_of_passes()
    assert order is not None and not order(480, 640, 476, 644)
    picture = noise(48, 64)
    expected = Image.fromarray(picture).resize((65, 48), 3).resize((65, 47), 3)
    np.testing.assert_array_equal(resize(torch.from_numpy(picture), 47, 65, 3).numpy(), expected)


def test_the_order_is_that_of_the_installed_pillow(pillow):
    pillow(Image)
    order = order_of_passes()
    assert order is not None
    expected = np.asarray(Image.fromarray(noise(48, 64)).resize((65, 47), 3))
    rows_first = Image.fromarray(noise(48, 64)).resize((65, 48), 3).resize((65, 47), 3)
    assert order(48, 64, 47, 65) != np.array_equal(expected, rows_first)


@pytest.mark.parametrize("other", [OtherPillow(vertical_first=True), OtherPillow(vertical_first=False, shift=1)])
def test_an_unknown_pillow_is_not_imitated(pillow, other):
    pillow(other)
    assert order_of_passes() is None and not can_resize(3)
    with pytest.raises(ValueError, match="Pillow's filter 3 are not known"):
        resize(torch.zeros(20, 20, 3, dtype=torch.uint8), 10, 10, 3)


def test_other_filters_are_refused():
    assert can_resize(3) and can_resize(Image.Resampling.BILINEAR)
    for other in (Image.Resampling.NEAREST, Image.Resampling.LANCZOS, None, "bicubic"):
        assert not can_resize(other)
