"""Steps on fixed buffers write what growing rows write. (Recording them needs a GPU.)"""

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from host_reads import taken, watched_embeddings

import acs_core.generation.generate as sampling
from acs_core.attention import AttentionNeeds, capture
from acs_core.errors import Cancelled
from acs_core.generation.cuda_graph import KEPT_DRAWS, KEPT_GRAPHS, StaticDecoder, static_decoder
from acs_core.generation.decoding import CudaGraphDecoder
from acs_core.generation.generate import generate
from acs_core.generation.prefill import prefill
from acs_core.generation.sample import sample_responses
from acs_core.generation.shared_cache import use_shared_prefix_attention
from acs_core.generation.static_rows import Capacity
from acs_core.generation.token_sampler import GreedySampler, TeacherForcing, TopPSampler
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


SAMPLERS = {
    "top-p": lambda lvlm: TopPSampler.of(CONFIG, [7], range(5)),
    "greedy": lambda lvlm: GreedySampler(),
    "forced": lambda lvlm: TeacherForcing([[70, 71, 72], [], [80] * 25, [81], [5, 6]], lvlm.eos_ids[0]),
}
CONFIG = SamplingConfig(num_samples=5, max_new_tokens=20, temperature=1.2)


@pytest.fixture
def drawn_steps(monkeypatch):
    """Counts the steps that drew on the device."""
    real, steps = StaticDecoder.draw, []
    monkeypatch.setattr(StaticDecoder, "draw", lambda self, drawn: steps.append(1) or real(self, drawn))
    return steps


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("ahead", [1, 3])
def test_tokens_that_are_drawn_on_the_device_are_the_same(lvlm, picture, static, drawn_steps, sampler, ahead):
    prompt = lvlm.prepare(picture, "key")
    state = prefill(lvlm, [prompt])
    static()
    written = []
    for queued in (0, ahead, ahead):
        options = {"token_statistics": True, "ahead": queued}
        (made,) = generate(lvlm, state, SAMPLERS[sampler](lvlm), 5, 20, **options)
        written.append(made)
        assert bool(drawn_steps) is bool(queued)
    plain = written[0]
    assert len(drawn_steps) <= 2 * (max(map(len, plain.response_ids)) + ahead)
    candidates = [
        Candidate(Box(0, 0, 1, 1), "", i, 0, tuple(min(k, len(ids) - 1) for k in (0, 1, 2, 19)))
        for i, ids in enumerate(plain.response_ids)
        if ids
    ]
    needs = AttentionNeeds(maps=True)
    for other in written[1:]:
        assert (other.response_ids, other.finished) == (plain.response_ids, plain.finished)
        assert other.token_entropy == plain.token_entropy and other.token_logprob == plain.token_logprob
        maps = [capture(lvlm, prompt, s, candidates, needs).maps for s in (plain, other)]
        np.testing.assert_allclose(*maps, atol=1e-6)


def test_a_response_that_ended_within_its_opening_keeps_its_attention(lvlm, picture, static):
    class Opened:
        def draft(self, ids, phrase, most=9):
            return [70, 71, 72]

    prompt = lvlm.prepare(picture, "key")
    state = prefill(lvlm, [prompt], drafts=Opened())
    static()
    made = [
        generate(lvlm, state, TeacherForcing([[70, 71], [70, 71, 72, 73, 74, 75]], lvlm.eos_ids[0]), 2, 9, ahead=ahead)
        for ahead in (0, 1)
    ]
    assert made[0][0].response_ids == made[1][0].response_ids == ((70, 71), (70, 71, 72, 73, 74, 75))
    candidates = [
        Candidate(Box(0, 0, 1, 1), "", 0, 0, (0, 1, 1, 1)),
        Candidate(Box(0, 0, 1, 1), "", 1, 0, (0, 1, 4, 5)),
    ]
    for step in ("emitting", "consuming"):
        needs = AttentionNeeds(maps=True, step=step)
        maps = [capture(lvlm, prompt, samples, candidates, needs).maps for (samples,) in made]
        np.testing.assert_allclose(*maps, atol=1e-6)


def test_other_temperatures_and_seeds_draw_anew(lvlm, picture, static, drawn_steps):
    state = prefill(lvlm, [lvlm.prepare(picture, "key")])
    static()
    for temperature, seed in ((1.2, 1), (0.7, 1), (0.9, 3), (1.2, 2)):
        config = replace(CONFIG, temperature=temperature)
        draw = [
            generate(lvlm, state, TopPSampler.of(config, [seed], range(5)), 5, 20, ahead=ahead)[0].response_ids
            for ahead in (0, 1)
        ]
        assert draw[0] == draw[1]
    (decoder,) = lvlm.graphs.kept.values()
    assert len(decoder._draws) == KEPT_DRAWS


def test_deadline_stop_and_complete_responses_while_steps_are_queued(lvlm, picture, static, drawn_steps):
    state = prefill(lvlm, [lvlm.prepare(picture, "key")])
    static()

    def run(ahead, **options):
        sampler = TopPSampler.of(CONFIG, [7], range(5))
        (made,) = generate(lvlm, state, sampler, 5, 20, ahead=ahead, **options)
        return made.response_ids, made.finished, made.batches[0].prefix_cache.lengths

    def after(checks):
        left = [False] * checks
        return lambda: not left or left.pop()

    for checks in (0, 1, 2, 6):
        assert run(2, cut_when=after(checks)) == run(0, cut_when=after(checks))
    complete = lambda prompt, ids: len(ids) > 6 and ids[-1] % 3 == 0  # noqa: E731
    assert run(2, is_complete=complete) == run(0, is_complete=complete)
    drawn_steps.clear()
    with pytest.raises(Cancelled, match="while the model was answering"):
        run(1, should_stop=after(5))
    assert len(drawn_steps) == 4  # none after it was asked to stop


def test_broken_logits_end_the_drawing_on_the_device(lvlm, picture, static, monkeypatch):
    state = prefill(lvlm, [lvlm.prepare(picture, "key")])
    static()
    real, steps = StaticDecoder._step, []

    def step(self, width):
        steps.append(1)
        logits = real(self, width)
        return torch.full_like(logits, torch.nan) if len(steps) == 4 else logits

    monkeypatch.setattr(StaticDecoder, "_step", step)
    found = []
    for ahead in (0, 2):
        steps.clear()
        (made,) = generate(lvlm, state, SAMPLERS["top-p"](lvlm), 5, 20, ahead=ahead)
        found.append((made.broken, made.response_ids))
    assert found[0] == found[1] and found[0][0] and max(map(len, found[0][1])) == 4


def test_a_drawn_step_reads_nothing_on_the_host(lvlm, picture):
    state = prefill(lvlm, [lvlm.prepare(picture, "key")])
    with watched_embeddings(lvlm), torch.inference_mode(), use_shared_prefix_attention(lvlm):
        decoder = CudaGraphDecoder(static_decoder(lvlm, state, 5, 30), state)
        for sampler in SAMPLERS.values():
            assert decoder.begin_drawing(sampler(lvlm), [[5]] * 5, True)
            taken()
            queued = [decoder.draw() for _ in range(3)]
            assert taken() == []
            assert len(queued[0].wait()) == 4 and len(queued[0].wait()[0]) == 5


PHRASES = ["key", "dog", "a very small dog behind the key"]


def test_buffers_serve_as_few_prompts_as_half_of_them():
    room = Capacity(prompts=4, each=3, prefix=256, suffix=16, own=64)
    assert [k for k in range(1, 6) if room.holds(replace(room, prompts=k))] == [2, 3, 4]
    assert not room.holds(replace(room, prompts=3, own=128))


@pytest.mark.parametrize("ahead", [0, 1])
def test_several_phrases_are_those_of_growing_rows(lvlm, picture, static, ahead):
    prompts = lvlm.prepare_many(picture, PHRASES)
    state = prefill(lvlm, prompts)

    def ask(state, seeds):
        sampler = TopPSampler.of(CONFIG, seeds, range(3))
        return generate(lvlm, state, sampler, 3, 20, token_statistics=True, ahead=ahead)

    states = [(state, [1, 2, 3]), (state.only([0, 2]), [1, 3]), (state.only([1, 2]), [2, 3]), (state, [4, 5, 6])]
    growing = [ask(*asked) for asked in states]
    static()
    fixed = [ask(*asked) for asked in states]
    assert [c.prompts for c in lvlm.graphs.kept] == [3]  # which serves two phrases, too
    for some, others in zip(growing, fixed, strict=True):
        for a, b in zip(some, others, strict=True):
            assert (a.response_ids, a.finished) == (b.response_ids, b.finished)
            for x, y in zip(a.token_logprob, b.token_logprob, strict=True):
                np.testing.assert_allclose(x, y, atol=1e-3)
            ids = enumerate(a.response_ids)
            found = [Candidate(Box(0, 0, 1, 1), "", i, 0, (0, 1, 2, len(own) - 1)) for i, own in ids if len(own) > 3]
            needs = AttentionNeeds(maps=True)
            maps = [capture(lvlm, a.state.prompts[a.prompt], s, found, needs).maps for s in (a, b)]
            np.testing.assert_allclose(*maps, atol=1e-6)


def test_buffers_of_more_than_twice_the_phrases_are_not_used(lvlm, picture):
    """Each phrase to spare is computed like the others."""
    state = prefill(lvlm, lvlm.prepare_many(picture, [*PHRASES, "cat", "dog on a key"]))
    parts = {number: state.only(range(number)) for number in (2, 3, 4)}
    with torch.inference_mode():
        largest = static_decoder(lvlm, state, 2, 10)
        assert largest.rows.capacity.prompts == 5
        assert static_decoder(lvlm, parts[3], 2, 10) is largest and static_decoder(lvlm, parts[4], 2, 10) is largest
        few = static_decoder(lvlm, parts[2], 2, 10)
        assert few.rows.capacity.prompts == 2
        assert static_decoder(lvlm, parts[2], 2, 10) is few and static_decoder(lvlm, state, 2, 10) is largest


def test_phrases_that_need_too_much_memory_are_left_to_growing_rows(lvlm, picture, monkeypatch):
    state = prefill(lvlm, lvlm.prepare_many(picture, PHRASES[:2]))
    with torch.inference_mode():
        needed = static_decoder(lvlm, state, 2, 10).nbytes
        lvlm.graphs.kept.clear()
        monkeypatch.setattr("acs_core.generation.cuda_graph.KEPT_BYTES", needed - 1)
        assert static_decoder(lvlm, state, 2, 10) is None
        alone = [static_decoder(lvlm, prefill(lvlm, [lvlm.prepare(picture, "key")]), n, 10) for n in (2, 9)]
    assert all(alone) and alone[0].nbytes < needed


def test_the_bytes_of_the_buffers_are_known(lvlm, picture):
    state = prefill(lvlm, lvlm.prepare_many(picture, PHRASES))
    with torch.inference_mode():
        decoder = static_decoder(lvlm, state, 2, 10)
    rows = decoder.rows
    stores = (
        rows.keys,
        rows.values,
        rows.suffix_keys,
        rows.suffix_values,
        rows.own_keys,
        rows.own_values,
        rows.queries,
    )
    assert decoder.nbytes == sum(t.numel() * t.element_size() for store in stores for t in store)


def test_what_cannot_be_recorded_is_said_once_and_avoided(lvlm, picture, monkeypatch, caplog):
    def fail(self, *_, **__):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(StaticDecoder, "__init__", fail)
    state = prefill(lvlm, [lvlm.prepare(picture, "key")])
    assert static_decoder(lvlm, state, 2, 10) is None
    assert static_decoder(lvlm, state, 2, 10) is None
    assert [r.message for r in caplog.records if "cannot be recorded" in r.message] == [caplog.records[0].message]
    assert not lvlm.graphs.usable


def test_running_out_of_memory_is_not_mistaken_for_that(lvlm, picture, monkeypatch):
    def fail(self, *_, **__):
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
