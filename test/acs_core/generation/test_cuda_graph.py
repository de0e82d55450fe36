"""Steps on fixed buffers write what growing rows write. (Recording them needs a GPU.)"""

import gc
import weakref

import numpy as np
import pytest
import torch

import acs_core.generation.generate as sampling
from acs_core.attention import AttentionNeeds, capture
from acs_core.generation.cuda_graph import KEPT_GRAPHS, StaticDecoder, static_decoder
from acs_core.generation.decoding import CudaGraphDecoder
from acs_core.generation.prefill import prefill
from acs_core.generation.sample import sample_responses
from acs_core.geometry import Box
from acs_core.lvlm import load_lvlm
from acs_core.types import Candidate, SamplingConfig


@pytest.fixture
def static(monkeypatch):
    """Makes sampling use fixed buffers on the CPU too."""

    def steps(lvlm, state, n, limit):
        return CudaGraphDecoder(static_decoder(lvlm, state, n, limit), state)

    return lambda: monkeypatch.setattr(sampling, "make_decoder", steps)


@pytest.fixture(autouse=True)
def forgotten(lvlm):
    yield
    lvlm.graphs.kept.clear()
    lvlm.graphs.usable = True


def test_responses_and_attention_are_those_of_growing_rows(lvlm, picture, static):
    config = SamplingConfig(num_samples=5, max_new_tokens=70, temperature=1.2, seed=7)
    prompt = lvlm.prepare(picture, "key")

    def ask(seed_shift=0):
        samples = sample_responses(lvlm, prompt, SamplingConfig(**{**vars(config), "seed": 7 + seed_shift}))
        candidates = [
            Candidate(Box(0, 0, 1, 1), "", i, 0, tuple(min(k, max(len(ids) - 1, 0)) for k in (0, 3, 20, 69)))
            for i, ids in enumerate(samples.response_ids)
        ]
        return samples, candidates, capture(lvlm, prompt, samples, candidates, AttentionNeeds(maps=True)).maps

    growing, _, expected = ask()
    static()
    fixed, candidates, maps = ask()
    assert fixed.response_ids == growing.response_ids and fixed.finished == growing.finished
    np.testing.assert_allclose(maps, expected, atol=1e-6)
    ask(seed_shift=1)  # writes into the same buffers; what was written before must not change
    again = capture(lvlm, prompt, fixed, candidates, AttentionNeeds(maps=True)).maps
    np.testing.assert_array_equal(again, maps)
    assert len(lvlm.graphs.kept) == 1


def test_another_picture_uses_the_same_buffers(lvlm, picture, static):
    config = SamplingConfig(num_samples=2, max_new_tokens=9, temperature=1.2, seed=4)
    other = np.random.default_rng(1).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    pictures = (picture, other, picture)
    growing = [sample_responses(lvlm, lvlm.prepare(p, "key"), config).response_ids for p in pictures]
    static()
    assert [sample_responses(lvlm, lvlm.prepare(p, "key"), config).response_ids for p in pictures] == growing
    assert len(lvlm.graphs.kept) == 1


def test_what_a_broken_call_left_does_not_matter(lvlm, picture, static):
    config = SamplingConfig(num_samples=2, max_new_tokens=9, temperature=1.2, seed=4)
    prompt = lvlm.prepare(picture, "key")
    static()
    before = sample_responses(lvlm, prompt, config).response_ids
    (decoder,) = lvlm.graphs.kept.values()
    rows = decoder.rows
    with torch.inference_mode():
        for buffer in (*rows.keys, *rows.values, *rows.own_keys, *rows.own_values):
            buffer.fill_(torch.nan)
    assert sample_responses(lvlm, prompt, config).response_ids == before


def test_only_a_few_are_kept(lvlm, picture):
    state = prefill(lvlm, [lvlm.prepare(picture, "key")])
    with torch.inference_mode():
        first = static_decoder(lvlm, state, 1, 10)
        for n in range(2, KEPT_GRAPHS + 1):
            static_decoder(lvlm, state, n, 10)
        assert static_decoder(lvlm, state, 1, 60) is first  # up to 64 tokens it is the same
        static_decoder(lvlm, state, 9, 10)
    assert len(lvlm.graphs.kept) == KEPT_GRAPHS
    assert first in lvlm.graphs.kept.values()  # the latest used stay


def test_several_phrases_are_left_to_growing_rows(lvlm, picture):
    assert static_decoder(lvlm, prefill(lvlm, lvlm.prepare_many(picture, ["key", "dog"])), 2, 10) is None


def test_what_cannot_be_recorded_is_said_once_and_avoided(lvlm, picture, monkeypatch, caplog):
    def fail(self, *_):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(StaticDecoder, "__init__", fail)
    state = prefill(lvlm, [lvlm.prepare(picture, "key")])
    assert static_decoder(lvlm, state, 2, 10) is None
    assert static_decoder(lvlm, state, 2, 10) is None
    assert [r.message for r in caplog.records if "cannot be recorded" in r.message] == [caplog.records[0].message]
    assert not lvlm.graphs.usable


def test_running_out_of_memory_is_not_mistaken_for_that(lvlm, picture, monkeypatch):
    def fail(self, *_):
        raise torch.OutOfMemoryError("tried to allocate 2 GiB")

    monkeypatch.setattr(StaticDecoder, "__init__", fail)
    state = prefill(lvlm, [lvlm.prepare(picture, "key")])
    with pytest.raises(torch.OutOfMemoryError):
        static_decoder(lvlm, state, 2, 10)
    assert lvlm.graphs.usable and not lvlm.graphs.kept


def test_a_model_that_nobody_holds_is_freed_with_its_buffers(model_folders, picture):
    own = load_lvlm(model_folders["internvl"], device="cpu")
    with torch.inference_mode():
        static_decoder(own, prefill(own, [own.prepare(picture, "key")]), 2, 10)
    assert own.graphs.kept
    gone = weakref.ref(own.hf_model)
    gc.collect()  # what transformers has left behind
    gc.disable()
    try:
        buffers = weakref.ref(next(iter(own.graphs.kept.values())))
        del own
        assert buffers() is None
    finally:
        gc.enable()
    gc.collect()
    assert gone() is None


def test_one_token_needs_no_recording(lvlm, picture):
    assert static_decoder(lvlm, prefill(lvlm, [lvlm.prepare(picture, "key")]), 2, 1) is None
