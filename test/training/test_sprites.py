import cv2
import numpy as np
import pytest

from training.sprites import GLYPHS, load_sprites


def test_every_category_has_a_drawing_that_fills_its_frame():
    sprites = load_sprites()
    assert [s.name for s in sprites] == sorted(GLYPHS)
    for sprite in sprites:
        alpha = sprite.rgba[..., 3] > 0
        assert alpha.any(axis=1)[[0, -1]].all() and alpha.any(axis=0)[[0, -1]].all(), sprite.name


def test_an_empty_folder_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="PNG"):
        load_sprites(tmp_path)


def test_a_picture_without_alpha_is_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "key.png"), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="alpha"):
        load_sprites(tmp_path)
