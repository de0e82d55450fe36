"""The budget of image tokens, and the frame in which models state coordinates."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

from acs_core.errors import ModelError, OptionError
from acs_core.grounder import Grounder
from acs_core.lvlm import FAMILIES, load_lvlm
from acs_core.lvlm.base import LoadedLVLM
from acs_core.lvlm.picture import PictureOptions, frame_sizes, limit_pixels, limit_tiles
from acs_core.serialize import result_to_dict

SIDES = st.integers(28, 5000)


def blank(width, height):
    return np.zeros((height, width, 3), np.uint8)


@settings(deadline=None)
@given(SIDES, SIDES, st.integers(16, 4000), st.integers(1, 20_000))
def test_patches_stay_within_the_budget(width, height, tokens, own):
    if max(width, height) > min(tokens, own) * min(width, height):  # no side gets shorter than a token
        return
    processor = Qwen2VLImageProcessorPil(size={"shortest_edge": 28 * 28, "longest_edge": own * 28 * 28})
    limit_pixels(processor, tokens)
    size = processor.size
    rows, columns = smart_resize(height, width, 28, size["shortest_edge"], size["longest_edge"])
    assert rows * columns <= min(tokens, own) * 28 * 28


def test_a_higher_budget_leaves_the_processor_as_it_is():
    processor = Qwen2VLImageProcessorPil(size={"shortest_edge": 80_000, "longest_edge": 90_000})
    limit_pixels(processor, 200)
    assert (processor.size["shortest_edge"], processor.size["longest_edge"]) == (80_000, 90_000)


@pytest.mark.parametrize(
    ("tokens", "own", "tiles"),
    [
        (256, 12, 1),
        (511, 12, 1),
        (767, 12, 1),
        (768, 12, 2),
        (1792, 12, 6),
        (3328, 12, 12),
        (9999, 12, 12),
        (1792, 4, 4),
    ],
)
def test_tiles_and_their_thumbnail_stay_within_the_budget(tokens, own, tiles):
    processor = GotOcr2ImageProcessorPil(min_patches=3, max_patches=own)
    limit_tiles(processor, tokens, 256)
    assert processor.max_patches == tiles and processor.min_patches == min(3, tiles)


def test_less_than_a_tile_is_refused(model_folders):
    with pytest.raises(ModelError, match="max_image_tokens is 255, and a tile of this model has 256"):
        limit_tiles(GotOcr2ImageProcessorPil(), 255, 256)


@pytest.mark.parametrize(
    ("kind", "tokens", "size", "input_size", "seen"),
    [
        ("qwen2_5_vl", None, (1280, 720), (168, 84), 18),  # the folder's own limit of 24 tokens holds
        ("qwen2_5_vl", 16, (1280, 720), (140, 84), 15),
        ("qwen2_5_vl", 16, (90, 80), (84, 84), 9),
        ("internvl-tiles", None, (150, 90), (126, 84), 63),
        ("internvl-tiles", 27, (150, 90), (84, 42), 27),
        ("internvl-tiles", 26, (150, 90), (42, 42), 9),
        ("internvl-tiles", None, (90, 150), (84, 126), 63),
        ("internvl", None, (150, 90), (42, 42), 9),
    ],
)
def test_the_model_sees_what_the_budget_allows(model_folders, kind, tokens, size, input_size, seen):
    lvlm = load_lvlm(model_folders[kind], device="cpu", max_image_tokens=tokens)
    prompt = lvlm.prepare(blank(*size), "key")
    assert (prompt.input_size, prompt.image_tokens) == (input_size, seen)
    assert int((prompt.input_ids == lvlm.builder.image_id).sum()) == seen
    assert lvlm.picture.max_image_tokens == (tokens or lvlm.adapter.max_image_tokens)


@pytest.mark.parametrize(
    ("family", "default", "frame", "own", "budgeted"),
    [
        # The first number of each pair is that of issue reports about real checkpoints.
        ("qwen2_5_vl", 1280, (1920, 1080), 2691, 1222),
        ("qwen2_5_vl", 1280, (3840, 2160), 10549, 1222),
        ("qwen2_5_vl", 1280, (1280, 720), 1196, 1196),
        ("internvl", 2304, (640, 480), 3328, 1792),
        ("internvl", 2304, (1920, 1080), 2304, 2304),
    ],
)
def test_the_default_budget_bounds_large_frames(family, default, frame, own, budgeted):
    adapter = FAMILIES[family]
    config = next(iter(adapter.shapes.values())).config()
    assert adapter.max_image_tokens == default
    assert adapter.image_tokens(config, *frame) == own
    assert adapter.image_tokens(config, *frame, default) == budgeted <= default


@pytest.mark.parametrize("name", sorted(FAMILIES))
@pytest.mark.parametrize("frame", [(1280, 720), (1920, 1080), (3840, 2160), (720, 1280)])
def test_a_larger_frame_does_not_get_fewer_tokens_by_default(name, frame):
    adapter = FAMILIES[name]
    config = next(iter(adapter.shapes.values())).config()
    least = adapter.image_tokens(config, 640, 480, adapter.max_image_tokens)
    assert adapter.image_tokens(config, *frame, adapter.max_image_tokens) >= least


def test_a_family_without_a_limit_says_so(monkeypatch, model_folders):
    family = type(FAMILIES["internvl"])
    monkeypatch.delattr(family, "limit_picture")
    with pytest.raises(ModelError, match="the family internvl has no limit of image tokens"):
        load_lvlm(model_folders["internvl"], device="cpu", max_image_tokens=500)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_image_tokens": 15}, "max_image_tokens must be a whole number from 16 to 1048576, got 15"),
        ({"max_image_tokens": 2**20 + 1}, "max_image_tokens must be"),
        ({"coordinate_frame": "1000"}, "coordinate_frame must be one of family, 0-1000, resized, original, 0-1"),
    ],
)
def test_wrong_options_are_refused(options, said):
    with pytest.raises(OptionError, match=said):
        PictureOptions(**options)


@pytest.mark.parametrize("options", [{"max_image_tokens": 20.0}, {"coordinate_frame": None}])
def test_options_of_a_wrong_type_are_refused(options):
    with pytest.raises(TypeError):
        PictureOptions(**options)


@pytest.mark.parametrize(
    ("frame", "size"),
    [("family", (84.0, 84.0)), ("0-1000", (1000.0, 1000.0)), ("resized", (84.0, 84.0)), ("original", (90.0, 80.0))],
)
def test_the_frame_replaces_that_of_the_family(model_folders, frame, size):
    lvlm = load_lvlm(model_folders["qwen2_5_vl"], device="cpu", coordinate_frame=frame)
    prompt = lvlm.prepare(blank(90, 80), "key")
    assert prompt.frame_size == size
    middle = tuple(side / 2 for side in size)
    assert lvlm.to_pixels(prompt, (0.0, 0.0, *middle)).as_tuple() == (0.0, 0.0, 45.0, 40.0)


def test_every_frame_covers_the_whole_image():
    image_size = (1920, 1080)
    for width, height in frame_sizes((1344, 756), image_size).values():
        lvlm = LoadedLVLM.__new__(LoadedLVLM)
        prompt = type("P", (), {"image_size": image_size, "frame_size": (width, height)})
        assert lvlm.to_pixels(prompt, (0.0, 0.0, width, height)).as_tuple() == (0.0, 0.0, 1920.0, 1080.0)


def test_the_answer_says_what_the_model_saw(folder, answers):
    answers("[]")
    grounder = Grounder.from_pretrained(folder, device="cpu", max_image_tokens=100, coordinate_frame="original")
    result = grounder.ground(blank(120, 60), "key")
    assert (result.image_size, result.input_size, result.image_tokens) == ((120, 60), (42, 42), 9)
    saved = result_to_dict(result)
    assert (saved["input_size"], saved["image_tokens"]) == ([42, 42], 9)
    assert grounder.lvlm.picture == PictureOptions(100, "original")
