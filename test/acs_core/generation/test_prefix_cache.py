"""An image that stays prefilled gives the answers of one that is read anew, and is kept within its bound."""

import gc
from itertools import cycle
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import acs_core.generation.generate as sampling
from acs_core import pipeline
from acs_core.errors import Cancelled, ImageError, PhraseError
from acs_core.generation.cuda_graph import static_decoder
from acs_core.generation.decoding import CudaGraphDecoder
from acs_core.generation.prefill import prefill
from acs_core.generation.prefix_cache import PrefixCache
from acs_core.geometry import Box
from acs_core.grounder import Grounder
from acs_core.image import read_image
from acs_core.selection.second_look import Window
from acs_core.types import SamplingConfig

PHRASES = ["key", "dog", "a very small dog behind the key"]
SAMPLE = read_image("docs/sample.png")


@pytest.fixture
def seen(lvlm):
    """Counts what reads images: the vision tower, and the image processor."""
    calls = SimpleNamespace(tower=0)
    tower = lvlm.hf_model.model.vision_tower if lvlm.family == "internvl" else lvlm.hf_model.model.visual

    def note(*_):
        calls.tower += 1

    hook = tower.register_forward_hook(note)
    yield calls
    hook.remove()


def test_prompts_about_a_kept_image_are_those_of_a_new_one(lvlm, picture, seen):
    prefixes = PrefixCache()
    for phrases in (PHRASES[:1], PHRASES, PHRASES[1:2], ["zebra"], ["a"]):
        plain = prefill(lvlm, lvlm.prepare_many(picture, phrases))
        seen.tower = 0
        prompts = prefixes.prepare(lvlm, picture.copy(), phrases)
        state = prefixes.prefill(lvlm, picture, prompts)
        assert seen.tower == (len(prefixes) == 0 or phrases == PHRASES[:1])
        for k, (mine, theirs) in enumerate(zip(prompts, plain.prompts, strict=True)):
            assert torch.equal(mine.input_ids, theirs.input_ids) and torch.equal(mine.position_ids, theirs.position_ids)
            assert (mine.phrase, mine.map_slice, mine.grid) == (theirs.phrase, theirs.map_slice, theirs.grid)
            for name in ("logits", "queries"):
                mine, theirs = (getattr(s, name)[k] for s in (state, plain))
                torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)
    assert len(prefixes) == 1


def test_an_image_is_known_by_its_pixels_and_shape(lvlm, picture, seen):
    prefixes = PrefixCache()
    changed = picture.copy()
    changed[0, 0, 0] ^= 1
    images = [picture, changed, np.ascontiguousarray(picture.reshape(picture.shape[1], picture.shape[0], 3))]
    for image in images:
        prefixes.prefill(lvlm, image, prefixes.prepare(lvlm, image, ["key"]))
    assert len(prefixes) == seen.tower == 3
    one = prefixes.nbytes // 3
    prefixes.max_bytes = prefixes.nbytes  # full: the next one takes the place of the one that was used least recently
    prefixes.prepare(lvlm, images[0], ["key"])
    fourth = np.flip(picture, 1).copy()
    prefixes.prefill(lvlm, fourth, prefixes.prepare(lvlm, fourth, ["key"]))
    assert 0 < prefixes.nbytes <= prefixes.max_bytes and len(prefixes) >= 2
    seen.tower = 0
    for image, reads in ((fourth, 0), (images[0], 0), (images[1], 1)):
        prefixes.prefill(lvlm, image, prefixes.prepare(lvlm, image, ["key"]))
        assert seen.tower == reads
    small = PrefixCache(one // 4)
    small.prefill(lvlm, picture, small.prepare(lvlm, picture, ["key"]))
    assert len(small) == small.nbytes == 0
    with pytest.raises(PhraseError):
        prefixes.prepare(lvlm, picture, [" "])
    with pytest.raises(Cancelled):
        prefixes.prefill(lvlm, picture, prefixes.prepare(lvlm, picture, ["key"]), should_stop=lambda: True)


@pytest.fixture(scope="module", params=["tiny-internvl", "tiny-qwen2.5-vl"])
def grounder(request):
    return Grounder.from_pretrained(request.param, selector="acs-fusion", device="cpu")


def test_phrases_about_a_set_image(grounder, monkeypatch):
    """One phrase and several, a second look, a region, and recorded steps: as without."""
    image, config = SAMPLE.copy(), SamplingConfig(seed=4, max_new_tokens=60)
    calls = []
    real = type(grounder.lvlm).prepare_many
    monkeypatch.setattr(type(grounder.lvlm), "prepare_many", lambda *a: calls.append(1) or real(*a))
    scene = grounder.set_image(image)
    height, width = image.shape[:2]
    assert repr(scene) == f"ImageGrounder({grounder!r}, image_size=({width}, {height}))"
    image[:] = 0  # the image is the one that was set
    assert calls == [1]
    cases = [
        (["key"], {}),
        (["mug", "key"], {}),
        (["key"], {"second_look": True}),
        (["key"], {"region": Box(200, 0, 400, 150)}),
        (["key"], {"with_attention": True}),
    ]
    for phrases, options in cases:
        kept = scene.ground_many(phrases, sampling=config, **options)
        for result, alone in zip(kept, grounder.ground_many(SAMPLE, phrases, sampling=config, **options), strict=True):
            assert [r.text for r in result.responses] == [r.text for r in alone.responses]
            assert (result.phrase, result.window, result.region) == (alone.phrase, alone.window, alone.region)
            for a, b in zip(result.detections, alone.detections, strict=True):
                np.testing.assert_allclose([*a.box.as_tuple(), a.score], [*b.box.as_tuple(), b.score], atol=0.05)
            if alone.attention is not None:
                np.testing.assert_allclose(result.attention, alone.attention, atol=1e-5)
    calls.clear()
    assert scene.ground("key", sampling=config, second_look=True).window and calls == []  # both looks are kept
    monkeypatch.setattr(sampling, "make_decoder", lambda *asked: CudaGraphDecoder(static_decoder(*asked), asked[1]))
    recorded = scene.ground("key", sampling=config)
    assert [r.text for r in recorded.responses] == [r.text for r in scene.ground("key", sampling=config).responses]
    grounder.lvlm.graphs.kept.clear()


@pytest.fixture
def vision_forwards(grounder):
    """One item per forward pass of the vision tower: one per image that is read."""
    lvlm, calls = grounder.lvlm, []
    tower = lvlm.hf_model.model.vision_tower if lvlm.family == "internvl" else lvlm.hf_model.model.visual
    hook = tower.register_forward_hook(lambda *_: calls.append(1))
    grounder._prefixes.clear()
    yield calls
    hook.remove()


def looks_at(monkeypatch, *boxes):
    """Let second looks be at these windows, one after the other, and again from the first on."""
    windows = cycle(boxes)
    around = classmethod(lambda cls, box, size, zoom: cls(next(windows), size))
    monkeypatch.setattr(Window, "around", around)


LEFT, RIGHT = (Box(x, 0, x + SAMPLE.shape[1] / 2, SAMPLE.shape[0] / 2) for x in (0, SAMPLE.shape[1] / 2))
SHORT = SamplingConfig(num_samples=2, seed=4, max_new_tokens=60)


def test_a_window_that_phrases_share_is_read_once(grounder, vision_forwards, monkeypatch):
    looks_at(monkeypatch, LEFT, LEFT)
    results = grounder.ground_many(SAMPLE, ["key", "car"], sampling=SHORT, second_look=True)
    assert [r.window for r in results] == [LEFT, LEFT]
    assert len(vision_forwards) == 2  # the image and the window
    assert len(grounder._prefixes) == 0  # without keep_prefix nothing stays
    for result in results:
        alone = grounder.ground(SAMPLE, result.phrase, sampling=SHORT, second_look=True)
        assert [r.text for r in alone.responses] == [r.text for r in result.responses]
        theirs, mine = ([c.box.as_tuple() for c in found.candidates] for found in (alone, result))
        np.testing.assert_allclose(mine, theirs)
    looks_at(monkeypatch, LEFT, RIGHT)
    vision_forwards.clear()
    grounder.ground_many(SAMPLE, ["key", "car"], sampling=SHORT, second_look=True)
    assert len(vision_forwards) == 3 and len(grounder._prefixes) == 0


def test_a_shared_window_takes_no_place_of_a_set_image(grounder, vision_forwards, monkeypatch):
    scene = grounder.set_image(SAMPLE)
    monkeypatch.setattr(grounder._prefixes, "max_bytes", grounder._prefixes.nbytes)
    looks_at(monkeypatch, LEFT)
    grounder.ground_many(SAMPLE, ["key", "car"], sampling=SHORT, second_look=True)
    assert len(vision_forwards) == 3  # the set image, the same in a call of its own, and the window
    scene.ground("key", sampling=SHORT)
    assert len(vision_forwards) == 3 and len(grounder._prefixes) == 1


def test_a_shared_window_does_not_stay_after_a_call_that_fails(grounder, vision_forwards, monkeypatch):
    looks_at(monkeypatch, LEFT)
    real, looks = pipeline._look_again, []

    def stopped(*args):
        if looks:
            raise Cancelled("stopped")
        looks.append(real(*args))
        return looks[0]

    monkeypatch.setattr(pipeline, "_look_again", stopped)
    with pytest.raises(Cancelled):
        grounder.ground_many(SAMPLE, ["key", "car"], sampling=SHORT, second_look=True)
    assert looks and len(grounder._prefixes) == 0


def test_windows_of_a_set_image_stay_within_the_bound_of_all(grounder, vision_forwards, monkeypatch):
    scene = grounder.set_image(SAMPLE)
    looks_at(monkeypatch, LEFT)
    for phrase in ("key", "key", "car"):
        scene.ground(phrase, sampling=SHORT, second_look=True)
    assert len(vision_forwards) == 2 and len(grounder._prefixes) == 2
    # With room for the image and one window, the windows take each other's place, and not that of the image.
    monkeypatch.setattr(grounder._prefixes, "max_bytes", grounder._prefixes.nbytes)
    looks_at(monkeypatch, RIGHT, LEFT)
    vision_forwards.clear()
    for _ in range(2):
        scene.ground_many(["key", "car"], sampling=SHORT, second_look=True)
    assert len(vision_forwards) == 4
    assert 0 < grounder._prefixes.nbytes <= grounder._prefixes.max_bytes and len(grounder._prefixes) == 2


def test_a_window_that_does_not_fit_frees_what_is_kept(grounder, vision_forwards, monkeypatch):
    scene = grounder.set_image(SAMPLE)

    def full(*_):
        raise torch.OutOfMemoryError("tried to allocate 2 GiB")

    monkeypatch.setattr("acs_core.pipeline._look_again", full)
    result = scene.ground("key", sampling=SHORT, second_look=True)
    assert result.window is None and result.skipped[-1].startswith("no second look: cpu ran out of memory")
    assert result.candidates and len(grounder._prefixes) == 0


def test_memory_of_images_is_given_back_when_it_runs_out(grounder, monkeypatch):
    scene = grounder.set_image(SAMPLE)
    assert len(grounder._prefixes) > 0
    grounder._samples_without(SimpleNamespace(config=SamplingConfig(), image_size=(9, 9)), 0, "full")
    gc.collect()
    assert len(grounder._prefixes) == 0
    assert scene.ground("key", sampling=SamplingConfig(seed=1)).detections and len(grounder._prefixes) == 1
    with pytest.raises(ImageError):
        grounder.set_image(np.zeros((4, 4), np.uint8))
