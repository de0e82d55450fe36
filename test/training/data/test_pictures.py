"""Pictures that differ from their annotation: boxes turned, scaled, or left out with a word."""

import numpy as np
import pytest
from PIL import Image

from acs_core.geometry import Box
from training.data.dataset import DatasetImage, DatasetObject, Problems
from training.data.pairs import Pair, split_pairs
from training.data.pictures import ASSUMED, OTHER, SCALED, TURNED, UNCLEAR, fit_to_pictures
from training.errors import DataError

BOX = Box(10, 20, 22, 28)
ORIENTATION = 0x0112


def photo(folder, name, size=(120, 80), orientation=1, scale=1, suffix=".png", box=BOX):
    """A picture that is black but for ``box``, as stored, and its annotation as stored."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[int(box.y1) : int(box.y2), int(box.x1) : int(box.x2)] = 255
    image = Image.fromarray(pixels).resize((round(size[0] * scale), round(size[1] * scale)), Image.Resampling.NEAREST)
    exif = image.getexif()
    exif[ORIENTATION] = orientation
    image.save(folder / f"{name}{suffix}", exif=exif)
    return folder / f"{name}{suffix}"


def fitted(*entries):
    """The pairs and notes of (file, annotated size, declared)."""
    images = [
        DatasetImage(n, file, size, (DatasetObject("key", BOX, 1),), declared=declared)
        for n, (file, size, declared) in enumerate(entries)
    ]
    notes = Problems()
    pairs = [Pair(i.id, i.file, "key", (BOX,), size=i.size) for i in images]
    return fit_to_pictures(pairs, images, notes), notes


def shown(pair):
    """The box of the bright pixels of the picture, as models see it."""
    y, x = np.nonzero(pair.read()[..., 0] > 128)
    return (x.min(), y.min(), x.max() + 1, y.max() + 1)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("scale", [1, 0.5])
@pytest.mark.parametrize("orientation", range(5, 9))
def test_boxes_of_the_stored_picture_are_turned_with_it(tmp_path, orientation, scale, suffix):
    file = photo(tmp_path, "a", orientation=orientation, scale=scale, suffix=suffix)
    ((pair,), notes) = fitted((file, (120, 80), True))
    assert pair.truth[0].as_tuple() == pytest.approx(shown(pair))
    assert set(notes.counts) == {TURNED} | ({SCALED} if scale != 1 else set())
    assert pair.size == (round(80 * scale), round(120 * scale)) and len(pair.picture) == 16


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_orientations_that_keep_the_size_follow_the_other_pictures(tmp_path, orientation):
    known, unclear = photo(tmp_path, "a", orientation=6), photo(tmp_path, "b", orientation=orientation)
    pairs, notes = fitted((known, (120, 80), True), (unclear, (120, 80), True))
    assert [p.truth[0].as_tuple() for p in pairs] == pytest.approx([shown(p) for p in pairs]) and len(pairs) == 2
    upright, notes = fitted((known, (80, 120), True), (unclear, (120, 80), True))
    assert [p.truth for p in upright] == [(BOX,), (BOX,)] and not notes.counts
    with pytest.raises(DataError, match="do not tell whether it is annotated as stored"):
        fitted((unclear, (120, 80), True))


def test_scaled_copies_get_scaled_boxes_and_others_are_left_out(tmp_path):
    half, odd = photo(tmp_path, "half", scale=0.5), photo(tmp_path, "odd", (100, 100))
    turned = photo(tmp_path, "turned", (80, 120))  # sides swapped, and no orientation that says how
    gone = tmp_path / "gone.png"
    pairs, notes = fitted(*((file, (120, 80), True) for file in (half, odd, turned, gone)))
    assert [p.file.name for p in pairs] == ["half.png", "gone.png"]
    assert pairs[0].truth[0].as_tuple() == pytest.approx(shown(pairs[0])) == (5, 10, 11, 14)
    assert (
        notes.counts == {SCALED: 1, OTHER: 2} and "odd.png: 100 x 100, annotated as 120 x 80" in notes.examples[OTHER]
    )
    assert notes.lines()[0].endswith("; all: odd.png, turned.png)")
    with pytest.raises(DataError, match=r"gone\.png does not exist"):
        pairs[1].read()


def test_without_an_annotated_size_the_upright_picture_counts_and_that_is_said(tmp_path):
    ((pair,), notes) = fitted((photo(tmp_path, "a", orientation=6), (80, 120), False))
    assert pair.truth == (BOX,) and notes.counts == {ASSUMED: 1}
    assert UNCLEAR not in notes.counts


def test_a_pair_refuses_a_picture_of_another_size(tmp_path):
    pair = Pair(0, photo(tmp_path, "a"), "key", (BOX,), size=(60, 40))
    with pytest.raises(DataError, match="120 x 80 pixels"):
        pair.read()


def test_calibration_draws_images_that_are_not_trained_on(tmp_path):
    pairs = [Pair(n // 2, tmp_path, name, (BOX,)) for n, name in enumerate("ab" * 50)]
    train, fresh = split_pairs(pairs, 30, 15)
    assert not {p.image_id for p in train} & {p.image_id for p in fresh}
    assert (len(train), len(fresh)) == (30, 15) and split_pairs(pairs, 30, 15) == (train, fresh)
    everything = split_pairs(pairs, None, 1000)
    assert [len(side) for side in everything] == [80, 20]  # a fifth, where the data set is small
