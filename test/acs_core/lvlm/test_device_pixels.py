"""Pictures that are resized, normalised and cut by operations on tensors are those of the image processor."""

import warnings
from dataclasses import replace
from enum import Enum

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from acs_core import Grounder
from acs_core.errors import ImageError
from acs_core.image import as_image, read_image
from acs_core.lvlm import device_pixels, internvl, qwen2_5_vl

SIZES = [(90, 150), (33, 400), (300, 41), (224, 224), (56, 56), (16, 700), (480, 640), (161, 83)]
WAYS = (None, True)  # Pillow resizes for a CPU; the device does


@pytest.mark.parametrize("size", SIZES)
def test_prompts_are_those_of_the_processor(lvlm, size):
    compare(lvlm, np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(16, 300), st.integers(16, 300), st.booleans())
def test_pictures_of_all_sizes(lvlm, height, width, hard):
    picture = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    compare(lvlm, (picture > 127).astype(np.uint8) * 255 if hard else picture)


def test_a_picture_of_the_sample(lvlm):
    compare(lvlm, read_image("docs/sample.png"))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA", "1"])
def test_pictures_that_are_converted(lvlm, mode):
    colours = np.random.default_rng(0).integers(0, 256, (120, 90, 4), dtype=np.uint8)
    compare(lvlm, as_image(Image.fromarray(colours).convert("RGB" if mode == "P" else "RGBA").convert(mode)))


def compare(lvlm, picture):
    plain = replace(lvlm, pixels_on_device=False).prepare_many(picture, ["key", "small dog"])
    for way in WAYS:
        made = replace(lvlm, pixels_on_device=way).prepare_many(picture, ["key", "small dog"])
        for a, b in zip(plain, made, strict=True):
            assert a.vision["pixel_values"].std() > 0.1
            assert a.vision.keys() == b.vision.keys()
            for one, other in [(a.vision[name], b.vision[name]) for name in a.vision] + [
                (getattr(a, name), getattr(b, name)) for name in ("input_ids", "position_ids")
            ]:
                assert one.dtype == other.dtype and torch.equal(one, other)
                assert other.is_contiguous()
            same = {"vision": {}, "input_ids": None, "position_ids": None}
            assert replace(a, **same) == replace(b, **same)


def test_only_true_resizes_on_a_cpu(lvlm, picture, monkeypatch):
    sizes = []

    def note(picture, height, width, resample):
        sizes.append((height, width))
        return torch.zeros(height, width, 3, dtype=torch.uint8)

    monkeypatch.setattr(device_pixels.device_resize, "resize", note)
    for way in (False, None):
        replace(lvlm, pixels_on_device=way).prepare(picture, "key")
    assert not sizes
    prompt = replace(lvlm, pixels_on_device=True).prepare(picture, "key")
    assert sizes[0] == prompt.input_size[::-1]
    assert prompt.vision["pixel_values"].unique().numel() <= 3  # black, normalised


def test_pillow_resizes_where_its_pixels_are_unknown(lvlm, picture, monkeypatch):
    monkeypatch.setattr(device_pixels.device_resize, "order_of_passes", lambda: None)
    compare(lvlm, picture)


def test_frames_in_read_only_memory_are_used_silently(lvlm, picture):
    frozen = np.frombuffer(picture.tobytes(), np.uint8).reshape(picture.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare(lvlm, frozen)


class Interpolation(Enum):
    """torchvision names filters so."""

    NEAREST = "nearest"


@pytest.mark.parametrize(
    ("setting", "value"), [("do_rescale", False), ("do_normalize", False), ("resample", Interpolation.NEAREST)]
)
def test_a_processor_that_does_something_else_is_used_itself(lvlm, picture, monkeypatch, setting, value):
    monkeypatch.setattr(lvlm.processor.image_processor, setting, value)
    plain, *made = (replace(lvlm, pixels_on_device=on).prepare(picture, "key").vision for on in (False, *WAYS))
    for vision in made:
        assert torch.equal(plain["pixel_values"], vision["pixel_values"])
    assert lvlm.adapter.device_pixels(lvlm.processor, picture, lvlm.device) is None


def test_pillows_other_filters_are_left_to_it(lvlm, picture, monkeypatch):
    monkeypatch.setattr(lvlm.processor.image_processor, "resample", Image.Resampling.LANCZOS)
    compare(lvlm, picture)


def test_what_the_processor_refuses_is_refused(lvlm, picture, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("too thin")

    monkeypatch.setattr(lvlm.processor.image_processor, "resize", refuse)
    monkeypatch.setattr(qwen2_5_vl, "smart_resize", refuse)
    monkeypatch.setattr(internvl, "get_optimal_tiled_canvas", refuse)
    for on in (False, *WAYS):
        with pytest.raises(ImageError, match=r"refuses a picture of 150 x 90 pixels \(too thin\)"):
            replace(lvlm, pixels_on_device=on).prepare(picture, "key")


@pytest.mark.parametrize("model", ["tiny-internvl", "tiny-qwen2.5-vl"])
def test_answers_are_the_same(model):
    grounder = Grounder.from_pretrained(model, device="cpu", calibration=False)
    plain, *others = (
        Grounder(
            replace(grounder.lvlm, pixels_on_device=on, learned={}), grounder.selector, grounder.calibration
        ).ground("docs/sample.png", "key", seed=1)
        for on in (False, *WAYS)
    )  # what one call learns would change the batches of the next, and their rounding
    assert plain.detections
    for result in others:
        assert [response.text for response in result.responses] == [response.text for response in plain.responses]
        assert result.candidates == plain.candidates and result.detections == plain.detections
