"""A vision tower that is recorded per size of the picture makes what it makes otherwise. (Recording it needs a GPU:
here the recorded part runs as it is, on the buffers of the recording.)"""

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from host_reads import Watched, taken

from acs_core.generation.prefill import prefill
from acs_core.generation.vision_graph import KEPT_TOWERS, KNOWN_SIZES, TIMES_TO_REPLACE, RecordedTower, recorded_vision
from acs_core.generation.vision_windows import batched_windows
from acs_core.lvlm import load_lvlm


@pytest.fixture(autouse=True)
def recording(lvlm):
    """The model records its vision tower on the CPU, too."""
    lvlm.graphs.vision = True
    yield
    lvlm.graphs.free()
    lvlm.graphs.vision = None


def noise(seed, height=90, width=150):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def states_of(lvlm, pictures):
    return [prefill(lvlm, [lvlm.prepare(picture, "key")]) for picture in pictures]


def assert_same(some, others):
    for a, b in zip(some, others, strict=True):
        torch.testing.assert_close(a.logits[0], b.logits[0], atol=1e-5, rtol=1e-5)
        for x, y in zip(a.prefix.keys, b.prefix.keys, strict=True):
            torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-5)


def has_one_size(lvlm):
    """Whether the processor brings every picture to one size."""
    return lvlm.prepare(noise(0), "key").input_size == lvlm.prepare(noise(0, 120, 60), "key").input_size


@pytest.fixture
def runs(monkeypatch):
    """The recordings that were used, in order."""
    real, used = RecordedTower.run, []
    monkeypatch.setattr(RecordedTower, "run", lambda self, pixels: used.append(id(self)) or real(self, pixels))
    return used


def test_what_is_read_is_the_same(lvlm, runs):
    pictures = [noise(0), noise(1), noise(2, 120, 60), noise(3), noise(4, 120, 60)]
    ours = states_of(lvlm, pictures)
    # Each size is recorded when it comes the second time.
    expected = [0, 0, 0, 0] if has_one_size(lvlm) else [0, 0, 1]
    assert [list(dict.fromkeys(runs)).index(run) for run in runs] == expected
    lvlm.graphs.vision = False
    assert_same(ours, states_of(lvlm, pictures))
    assert len(runs) == len(expected)
    tower = getattr(lvlm.hf_model.model, "visual", getattr(lvlm.hf_model.model, "vision_tower", None))
    assert "forward" not in vars(tower)


def test_the_recorded_part_reads_nothing_on_the_host(lvlm):
    prompt = lvlm.prepare(noise(0), "key")
    for _ in range(2):
        prefill(lvlm, [prompt])
    (recording,) = lvlm.graphs.towers.values()
    recording._pixels = recording._pixels.as_subclass(Watched)
    for name, value in recording._options.items():
        if isinstance(value, torch.Tensor) and name != "grid_thw":
            recording._options[name] = value.as_subclass(Watched)
    if recording._windows is not None:  # whose places are known from the warm-up
        recording._windows._known = [
            (recording._options[name], places)
            for known, places in recording._windows._known
            for name, value in recording._options.items()
            if isinstance(value, torch.Tensor) and value.shape == known.shape and value.equal(known)
        ]
    taken()
    with torch.inference_mode(), batched_windows(lvlm):
        if recording._windows is not None:
            lvlm.hf_model.model.visual.config.acs_windows = recording._windows
        recording._step()
    assert taken() == []


def test_few_are_kept_the_latest_used(lvlm, runs):
    if has_one_size(lvlm):
        pytest.skip("one size for all pictures")
    sizes = [(60 + 60 * k, 150) for k in range(KEPT_TOWERS + 1)]
    for k in range(2):
        states_of(lvlm, [noise(k, *size) for size in sizes[:KEPT_TOWERS]])
    first = runs[0]
    states_of(lvlm, [noise(5, *sizes[0])])
    assert runs[-1] == first
    before = list(lvlm.graphs.towers)
    states_of(lvlm, [noise(k, *sizes[-1]) for k in range(TIMES_TO_REPLACE - 1)])
    assert list(lvlm.graphs.towers) == before  # none loses its place to a size that may not come again
    states_of(lvlm, [noise(9, *sizes[-1])])
    assert len(lvlm.graphs.towers) == KEPT_TOWERS and first in map(id, lvlm.graphs.towers.values())
    assert list(lvlm.graphs.towers)[:-1] == before[1:]


@pytest.mark.parametrize("times", [1, 2])
def test_more_sizes_in_turn_than_are_kept_do_not_record_each_time(lvlm, monkeypatch, runs, times):
    """``times`` pictures of each size, and then of the next one."""
    if has_one_size(lvlm):
        pytest.skip("one size for all pictures")
    real, made = RecordedTower.__init__, []
    monkeypatch.setattr(RecordedTower, "__init__", lambda self, *args: made.append(1) or real(self, *args))
    sizes = [(60 + 60 * k, 150) for k in range(KEPT_TOWERS + 1) for _ in range(times)]
    rounds = 2 * TIMES_TO_REPLACE // times
    states_of(lvlm, [noise(0, *size) for _ in range(rounds) for size in sizes])
    pictures = rounds * len(sizes)
    # At most one more per size and TIMES_TO_REPLACE pictures of it.
    assert KEPT_TOWERS < len(made) <= KEPT_TOWERS + pictures // TIMES_TO_REPLACE
    assert len(runs) > pictures // 2


def test_what_was_freed_is_recorded_when_it_comes_twice_again(lvlm, runs):
    states_of(lvlm, [noise(k) for k in range(3)])
    assert len(runs) == 2
    lvlm.graphs.free()
    states_of(lvlm, [noise(4)])
    assert not lvlm.graphs.towers and len(lvlm.graphs.sizes) == 1
    states_of(lvlm, [noise(5)])
    assert len(lvlm.graphs.towers) == 1 and len(runs) == 3


def test_sizes_that_came_once_are_forgotten(lvlm):
    prompt = lvlm.prepare(noise(0), "key")
    for k in range(KNOWN_SIZES + 3):
        with torch.inference_mode(), recorded_vision(lvlm, replace(prompt, input_size=(k, k))):
            lvlm.hf_model.model.get_image_features(**prompt.vision)
    assert len(lvlm.graphs.sizes) == KNOWN_SIZES and not lvlm.graphs.towers


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("not permitted when stream is capturing"),
        TypeError("no such argument"),
        torch.OutOfMemoryError("tried to allocate 2 GiB"),
    ],
)
def test_what_cannot_be_recorded_is_computed_without(lvlm, monkeypatch, caplog, error):
    def fail(self, *_):
        raise error

    pictures = [noise(k) for k in range(3)]
    lvlm.graphs.vision = False
    plain = states_of(lvlm, pictures)
    lvlm.graphs.vision = True
    monkeypatch.setattr(RecordedTower, "__init__", fail)
    assert_same(plain, states_of(lvlm, pictures))
    said = [r.message for r in caplog.records]
    assert said == [f"the vision tower cannot be recorded as a CUDA graph and will be slower: {error}"]
    assert lvlm.graphs.vision is False and not lvlm.graphs.towers


def test_a_forward_with_several_arguments_without_names_is_not_recorded(lvlm, runs, monkeypatch):
    prompt = lvlm.prepare(noise(0), "key")
    tower = getattr(lvlm.hf_model.model, "visual", getattr(lvlm.hf_model.model, "vision_tower", None))
    given = []
    monkeypatch.setattr(type(tower), "forward", lambda _, *args, **options: given.append((args, options)) or "made")
    for _ in range(3):
        with recorded_vision(lvlm, prompt):
            assert tower.forward("pixels", "places", wide=True) == "made"
    assert given == [(("pixels", "places"), {"wide": True})] * 3
    assert not runs and not lvlm.graphs.towers and lvlm.graphs.vision


def test_no_memory_for_a_picture_is_still_said(lvlm, monkeypatch):
    def fail(self, pixels):
        raise torch.OutOfMemoryError("tried to allocate 2 GiB")

    states_of(lvlm, [noise(0), noise(1)])
    monkeypatch.setattr(RecordedTower, "run", fail)
    with pytest.raises(torch.OutOfMemoryError):
        states_of(lvlm, [noise(2)])
    lvlm.graphs.free()
    assert not lvlm.graphs.towers


def test_on_a_cpu_nothing_is_recorded_unless_wanted(lvlm, runs):
    lvlm.graphs.vision = None
    states_of(lvlm, [noise(k) for k in range(3)])
    assert not runs and not lvlm.graphs.sizes


def test_a_model_that_nobody_holds_is_freed_with_its_recordings(model_folders):
    own = load_lvlm(model_folders["internvl"], device="cpu")
    own.graphs.vision = True
    states_of(own, [noise(0), noise(1)])
    buffers = weakref.ref(next(iter(own.graphs.towers.values())))
    gc.collect()
    gc.disable()
    try:
        del own
        assert buffers() is None
    finally:
        gc.enable()
