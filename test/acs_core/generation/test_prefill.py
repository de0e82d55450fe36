"""Prompts about one picture are read together, and attention to the one copy equals that of rows that each hold it."""

import functools
import inspect
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

from acs_core.errors import Cancelled
from acs_core.generation.prefill import cache_name, prefill, stack_states
from acs_core.generation.sample import greedy_response
from acs_core.generation.shared_cache import (
    CacheSegment,
    Opening,
    QueryRecorder,
    SharedPrefixCache,
    shared_prefix_attention,
)

PHRASES = ["key", "dog", "a very small dog behind the key"]
HEADS, GROUPS, DIM = 4, 2, 8
MODULE = SimpleNamespace(layer_idx=0, is_causal=True, num_key_value_groups=HEADS // GROUPS)


def test_what_is_read_together_equals_what_is_read_alone(lvlm, picture):
    together = prefill(lvlm, lvlm.prepare_many(picture, PHRASES))
    assert len(together.prompts) == 3 and together.prefix.length > together.prompts[0].map_slice[1]
    for k, phrase in enumerate(PHRASES):
        alone = prefill(lvlm, [lvlm.prepare(picture, phrase)])
        assert alone.suffixes == (None,)
        torch.testing.assert_close(together.logits[k], alone.logits[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together.queries[k], alone.queries[0], atol=1e-4, rtol=1e-4)
        for layer in range(lvlm.num_layers):
            for what in ("keys", "values"):
                parts = getattr(together.prefix, what)[layer], getattr(together.suffixes[k], what)[layer]
                torch.testing.assert_close(
                    torch.cat(parts, dim=1), getattr(alone.prefix, what)[layer], atol=1e-4, rtol=1e-4
                )


def test_the_last_hidden_state_is_what_the_first_logits_are_computed_from(lvlm, picture):
    together = prefill(lvlm, lvlm.prepare_many(picture, PHRASES))
    with torch.inference_mode():
        for k, phrase in enumerate(PHRASES):
            made = lvlm.hf_model.get_output_embeddings()(together.hidden[k])
            torch.testing.assert_close(made, together.logits[k], atol=1e-4, rtol=1e-4)
            alone = prefill(lvlm, [lvlm.prepare(picture, phrase)])
            torch.testing.assert_close(alone.hidden[0], together.hidden[k], atol=1e-4, rtol=1e-4)
    assert together.hidden[0].shape == (lvlm.text_model.config.hidden_size,)
    assert together.only([2]).hidden == (together.hidden[2],)
    assert [state.hidden for state in together.apart()] == [(h,) for h in together.hidden]
    assert stack_states(together.apart()).hidden == together.hidden


def test_some_of_the_prompts(lvlm, picture):
    state = prefill(lvlm, lvlm.prepare_many(picture, PHRASES))
    some = state.only([0, 2])
    assert [p.phrase for p in some.prompts] == [PHRASES[0], PHRASES[2]]
    assert some.prefix is state.prefix and some.suffixes == (state.suffixes[0], state.suffixes[2])
    assert some.logits[1] is state.logits[2] and some.queries[1] is state.queries[2]
    assert state.only([0, 1, 2]) is state


def test_the_vision_tower_runs_once_for_all_phrases(lvlm, picture):
    calls = []
    tower = lvlm.hf_model.model.vision_tower if lvlm.family == "internvl" else lvlm.hf_model.model.visual
    hook = tower.register_forward_hook(lambda *_: calls.append(1))
    try:
        prefill(lvlm, lvlm.prepare_many(picture, PHRASES))
    finally:
        hook.remove()
    assert calls == [1]


def test_only_phrases_about_one_picture_are_read_together(lvlm, picture):
    with pytest.raises(ValueError, match="different pictures"):
        prefill(lvlm, [lvlm.prepare(picture, "key"), lvlm.prepare(np.flip(picture, 0).copy(), "key")])
    with pytest.raises(ValueError, match="no prompts"):
        prefill(lvlm, [])


def test_a_stop_is_noticed_before_each_forward(lvlm, picture):
    prompts = lvlm.prepare_many(picture, PHRASES)
    for calls in range(4):
        asked = iter(range(100))
        with pytest.raises(Cancelled, match="before the model read"):
            prefill(lvlm, prompts, should_stop=lambda asked=asked, calls=calls: next(asked) >= calls)


def segment(length, generator):
    return CacheSegment(*(((torch.randn(GROUPS, length, DIM, generator=generator)),) for _ in range(2)))


def plain(query, keys, values):
    return functional.scaled_dot_product_attention(
        query, keys.repeat_interleave(2, dim=1), values.repeat_interleave(2, dim=1), scale=0.3
    ).transpose(1, 2)


@pytest.fixture
def marked_memory():
    """Fills memory with NaN where a tensor is made without values, so that reading it shows."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("drafts", [False, True], ids=["one-token", "drafts"])
@pytest.mark.parametrize("steps", [3, 70])
@pytest.mark.parametrize(
    ("shared", "tails", "counts", "left"),
    [(11, (None,), (3,), (0, 2)), (11, (5, 2, 9), (2, 3, 1), (0, 5)), (0, (5, 2, 9), (2, 3, 1), (2, 4))],
    ids=["one phrase", "phrases", "pictures"],
)
def test_attention_of_rows_that_grow_and_end(steps, shared, tails, counts, left, drafts, marked_memory):
    """Rows are fed different numbers of tokens, of which only some are kept; the first tokens may come with the
    prompt. Without a shared beginning, those of the shortest prompt are left."""
    generator = torch.Generator().manual_seed(0)
    choose = np.random.default_rng(0)
    trunk = segment(shared, generator)
    ends = [segment(length, generator) if length else None for length in tails]
    prefix_cache = SharedPrefixCache(trunk, ends, counts)
    phrase = [k for k, count in enumerate(counts) for _ in range(count)]
    total = len(phrase)
    prompt = []  # per row: keys and values (G, S, D)
    for k in phrase:
        parts = [trunk, ends[k]] if ends[k] else [trunk]
        prompt.append([torch.cat([getattr(p, what)[0] for p in parts], dim=1) for what in ("keys", "values")])
    own = [[torch.empty(GROUPS, 0, DIM), torch.empty(GROUPS, 0, DIM)] for _ in range(total)]
    asked = [[] for _ in range(total)]  # the queries (K, D) of each kept token
    if drafts:
        openings = [
            Opening((1, 2), segment(2, generator), torch.randn(1, 2, HEADS, DIM), torch.empty(0)) for _ in counts
        ]
        kept = [row % 3 for row in range(total)]
        prefix_cache.begin_with(openings, kept)
        for row, number in enumerate(kept):
            opening = openings[phrase[row]]
            own[row] = [part[0][:, :number] for part in (opening.segment.keys, opening.segment.values)]
            asked[row] += [*opening.queries[0, :number]]
    running = list(range(total))
    for step in range(steps):
        if step == 2:
            running = list(left)
        fed = {row: int(choose.integers(1, 5)) if drafts else 1 for row in running}
        prefix_cache.begin_step(fed)
        many = sum(fed.values())
        query, key, value = (torch.randn(many, n, 1, DIM, generator=generator) for n in (HEADS, GROUPS, GROUPS))
        all_keys, all_values = prefix_cache.update(key, value, 0)
        out, _ = shared_prefix_attention(MODULE, query, all_keys, all_values, None, 0.3, acs_attending=prefix_cache)
        prefix_cache.end_step()
        kept = [int(choose.integers(1, count + 1)) for count in fed.values()]
        prefix_cache.keep(kept)
        at = 0
        for (row, count), number in zip(fed.items(), kept, strict=True):
            mine = [torch.cat([own[row][k], *new[at : at + count]], dim=1) for k, new in enumerate((key, value))]
            before = own[row][0].shape[1]
            for i in range(count):
                keys, values = (
                    torch.cat([prompt[row][k], mine[k][:, : before + i + 1]], dim=1)[None] for k in range(2)
                )
                torch.testing.assert_close(
                    out[at + i : at + i + 1], plain(query[at + i : at + i + 1], keys, values), atol=1e-5, rtol=1e-4
                )
            own[row] = [part[:, : before + number] for part in mine]
            asked[row] += [*query[at : at + number, :, 0]]
            at += count
    assert prefix_cache.lengths == [len(queries) for queries in asked] == [keys.shape[1] for keys, _ in own]
    assert prefix_cache.get_seq_length() == shared + max(prefix_cache.lengths)
    for row in range(total):
        assert torch.equal(prefix_cache.own_keys(0)[row, :, : len(asked[row])], own[row][0])
        for token, expected in enumerate(asked[row]):
            assert torch.equal(prefix_cache.query(row, token)[0], expected)


def test_the_prompt_is_stored_once():
    generator = torch.Generator().manual_seed(0)
    trunk = segment(500, generator)
    prefix_cache = SharedPrefixCache(trunk, [None], [30])
    key = torch.randn(30, GROUPS, 1, DIM)
    prefix_cache.begin_step(dict.fromkeys(range(30), 1))
    prefix_cache.update(key, key, 0)
    assert sum(store.numel() for store in prefix_cache.keys) < trunk.keys[0].numel() * 30 / 4
    assert prefix_cache.prefix.keys[0] is trunk.keys[0]


def test_without_company_it_is_plain_attention():
    query, key = torch.randn(1, HEADS, 3, DIM), torch.randn(1, GROUPS, 3, DIM)
    out, weights = shared_prefix_attention(MODULE, query, key, key, None, 0.3)
    expected = functional.scaled_dot_product_attention(
        query, key.repeat_interleave(2, 1), key.repeat_interleave(2, 1), is_causal=True, scale=0.3
    )
    torch.testing.assert_close(out, expected.transpose(1, 2))
    assert weights is None
    noted = QueryRecorder()
    assert torch.equal(shared_prefix_attention(MODULE, query, key, key, None, 0.3, acs_attending=noted)[0], out)
    assert torch.equal(noted.layers[0], query[:, :, -1:].transpose(1, 2))


def test_the_cache_goes_by_the_name_of_the_installed_release(lvlm, picture, monkeypatch):
    """transformers warns about an old name before it is removed; then every call would fail."""
    given = []
    for model in (lvlm.hf_model, lvlm.text_model):
        real, kind = type(model).forward, type(model)

        def noting(self, *values, _real=real, **named):
            given.append(set(named) & {"cache", "past_key_values"})
            return _real(self, *values, **named)

        name = cache_name(kind)
        assert name in inspect.signature(real).parameters
        monkeypatch.setattr(kind, "forward", functools.wraps(real)(noting))
    greedy_response(lvlm, lvlm.prepare(picture, "key"), max_new_tokens=2)
    assert given and all(names == {name} for names in given)
