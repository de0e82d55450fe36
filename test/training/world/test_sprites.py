import json

import numpy as np
import pytest
from PIL import Image

from training.errors import DataError
from training.world import sprites
from training.world.sprites import CATEGORIES, CLUTTER, CLUTTER_GLYPHS, FLUENT, NOTO, category_names, load_sprites


def drawings(column):
    return sorted(name for name, sources in CATEGORIES.items() for _ in sources[column].split())


@pytest.mark.parametrize(
    ("folder", "names"),
    [(NOTO, drawings(0)), (FLUENT, drawings(1)), (CLUTTER, sorted(CLUTTER_GLYPHS))],
    ids=["noto", "fluent", "clutter"],
)
def test_every_drawing_is_there_and_fills_its_frame(folder, names):
    loaded = load_sprites(folder)
    assert [s.name for s in loaded] == names
    for sprite in loaded:
        alpha = sprite.rgba[..., 3] > 0
        assert alpha.any(axis=1)[[0, -1]].all() and alpha.any(axis=0)[[0, -1]].all(), sprite.name
        assert 90 <= max(alpha.shape) <= 96
    assert "licen" in (folder / "LICENSE").read_text().lower()


def test_the_categories_are_sorted_and_clutter_is_none_of_them():
    names = category_names()
    assert list(names) == sorted(CATEGORIES) and len(names) >= 40
    assert not set(names) & set(CLUTTER_GLYPHS)


def test_the_drawings_of_the_shifted_split_are_others():
    for seen, unseen in zip(load_sprites(NOTO), load_sprites(FLUENT), strict=True):
        assert seen.rgba.shape != unseen.rgba.shape or (seen.rgba != unseen.rgba).any()


def write_text(path):
    path.write_text("no picture")


def write_opaque(path):
    Image.new("RGB", (4, 4)).save(path)


@pytest.mark.parametrize(
    ("write", "message"),
    [(lambda path: None, "should hold PNG"), (write_text, "not a readable PNG"), (write_opaque, "no alpha channel")],
    ids=["empty", "text", "opaque"],
)
def test_a_bad_folder_says_what_is_wrong(tmp_path, write, message):
    write(tmp_path / "key.png")
    with pytest.raises(DataError, match=message):
        load_sprites(tmp_path)


def test_a_saved_drawing_is_cropped_and_scaled(tmp_path):
    canvas = np.zeros((300, 200, 4), np.uint8)
    canvas[40:240, 60:160] = (200, 30, 30, 255)
    sprites._save(canvas, tmp_path / "cell_phone-2.png", size=96)
    (sprite,) = load_sprites(tmp_path)
    assert sprite.name == "cell phone" and sprite.rgba.shape == (96, 48, 4)
    assert np.abs(sprite.rgba[48, 24].astype(int) - (200, 30, 30, 255)).max() <= 8


def test_fluent_sources_that_lack_a_drawing_are_named(tmp_path):
    pytest.importorskip("resvg_py")
    (tmp_path / "icons.json").write_text(json.dumps({"icons": {}}))
    with pytest.raises(DataError, match="no drawing 'red-apple'"):
        sprites.make_fluent_sprites(tmp_path / "icons.json", tmp_path)
