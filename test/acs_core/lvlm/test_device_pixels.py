"""Pictures that are normalised and cut by operations on tensors equal those of the image processor."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from acs_core.errors import ImageError
from acs_core.image import read_image

SIZES = [(90, 150), (33, 400), (300, 41), (224, 224), (56, 56), (16, 700)]


@pytest.mark.parametrize("size", SIZES)
def test_prompts_are_those_of_the_processor(lvlm, size):
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    compare(lvlm, picture)


def test_a_picture_of_the_sample(lvlm):
    compare(lvlm, read_image("docs/sample.png"))


def compare(lvlm, picture):
    plain = lvlm.prepare_many(picture, ["key", "small dog"])
    made = replace(lvlm, pixels_on_device=True).prepare_many(picture, ["key", "small dog"])
    for a, b in zip(plain, made, strict=True):
        pixels = [prompt.vision["pixel_values"] for prompt in (a, b)]
        assert pixels[0].shape == pixels[1].shape and pixels[0].dtype == pixels[1].dtype
        assert pixels[1].std() > 0.1
        torch.testing.assert_close(pixels[0], pixels[1], atol=2e-6, rtol=0)  # a step of 255 is 0.014
        assert a.vision.keys() == b.vision.keys()
        for name in ("input_ids", "position_ids"):
            assert torch.equal(getattr(a, name), getattr(b, name))
        if "image_grid_thw" in a.vision:
            assert torch.equal(a.vision["image_grid_thw"], b.vision["image_grid_thw"])
        same = {"vision": {}, "input_ids": None, "position_ids": None}
        assert replace(a, **same) == replace(b, **same)


def test_a_processor_that_does_something_else_is_used_itself(lvlm, picture, monkeypatch):
    monkeypatch.setattr(lvlm.processor.image_processor, "do_rescale", False)
    plain, made = (replace(lvlm, pixels_on_device=on).prepare(picture, "key").vision for on in (False, True))
    assert torch.equal(plain["pixel_values"], made["pixel_values"])
    assert lvlm.adapter.device_pixels(lvlm.processor, picture, lvlm.device) is None


def test_what_the_processor_refuses_is_refused(lvlm, picture, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("too thin")

    monkeypatch.setattr(lvlm.processor.image_processor, "resize", refuse)
    for on in (False, True):
        with pytest.raises(ImageError, match=r"refuses a picture of 150 x 90 pixels \(too thin\)"):
            replace(lvlm, pixels_on_device=on).prepare(picture, "key")
