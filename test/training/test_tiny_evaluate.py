"""The shipped model on pictures that neither its training nor its selectors have seen."""

import pytest

from acs_core.assets import resolve_model
from acs_core.lvlm import load_lvlm
from training.errors import DataError
from training.sprites import load_sprites
from training.tiny.data import Pictures, render_pictures
from training.tiny.evaluate import greedy_accuracy
from training.world import WorldConfig


def test_the_shipped_model_grounds_small_objects(tmp_path):
    lvlm = load_lvlm(resolve_model("tiny-internvl"), device="cpu")
    pictures = render_pictures(tmp_path, 60, 103, load_sprites(), WorldConfig())
    found = greedy_accuracy(lvlm.hf_model, lvlm.processor, pictures, limit=100)
    assert found["cases"] == 100
    assert found["acc"] >= 0.6 and found["right_object"] >= 0.8 and found["no_box"] <= 0.1, found


def test_pictures_without_a_small_object_are_refused(tmp_path):
    pictures = render_pictures(tmp_path, 1, 1, load_sprites(), WorldConfig(small_share=0.0))
    with pytest.raises(DataError, match="small object"):
        greedy_accuracy(None, None, Pictures(pictures.pixels, ((),)))
