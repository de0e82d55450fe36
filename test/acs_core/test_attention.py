"""What is looked at once equals what a full eager forward gives."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from acs_core import attention as module
from acs_core.attention import AttentionNeeds, AttentionRecord, capture, entropy, resize_maps, row_entropy
from acs_core.generation.candidates import find_candidates
from acs_core.generation.generate import draw_more
from acs_core.generation.prefill import prefill
from acs_core.generation.sample import sample_responses
from acs_core.generation.shared_cache import IMPLEMENTATION, CacheSegment, SharedPrefixCache
from acs_core.generation.token_statistics import TokenStatistics
from acs_core.geometry import Box
from acs_core.selection.attention_in_box import attention_in_boxes
from acs_core.types import Candidate, SamplingConfig

ANSWERS = [
    "[10, 20, 300, 40]",
    '[{"bbox_2d": [1, 2, 30, 40], "label": "key"}, {"bbox_2d": [15, 24, 350, 46], "label": "key"}]',
    "[]",
    "(5, 6), (700, 800) and [[1, 2, 30, 40], [3, 4, 50, 60], [5, 6, 70, 80]]",
    "no idea",
]
CASES = [
    ("one cell", [[0.0, 3.0], [0.0, 0.0]], 0.0),
    ("even", [[0.1, 0.1], [0.1, 0.1]], math.log(4)),
    ("two cells", [[0.5, 0.5], [0.0, 0.0]], math.log(2)),
    ("no mass", [[0.0, 0.0], [0.0, 0.0]], math.log(4)),
    ("by hand", [[1.0, 3.0], [0.0, 0.0]], -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))),
]


def answered(lvlm, picture, n, phrase="key"):
    """A prompt, N forced answers of different lengths, and their candidates."""
    prompt = lvlm.prepare(picture, phrase)
    texts = [ANSWERS[(i + (n == 1)) % len(ANSWERS)] for i in range(n)]
    forced = [lvlm.tokenizer(text)["input_ids"] for text in texts]
    samples = sample_responses(lvlm, prompt, SamplingConfig(num_samples=n), forced=forced)
    candidates, _ = find_candidates(lvlm, prompt, samples)
    return prompt, samples, candidates


def eager_maps(lvlm, prompt, samples, candidates, later=0):
    """The same maps (C, 4, L, K, Hv, Wv) from full forwards, one response at a time, with eager attention; ``later`` so
    many positions after the one that emits a coordinate."""
    lvlm.hf_model.set_attn_implementation("eager")
    try:
        by_response = {}
        for index in {c.response for c in candidates}:
            answer = torch.tensor([samples.response_ids[index]], dtype=torch.long)
            ids = torch.cat([prompt.input_ids, answer], dim=1)
            positions = prompt.next_position + torch.arange(answer.shape[1])
            positions = positions.expand(*prompt.position_ids.shape[:-1], -1)
            with torch.no_grad():
                out = lvlm.hf_model(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    position_ids=torch.cat([prompt.position_ids, positions], dim=-1),
                    output_attentions=True,
                    **prompt.vision,
                )
            by_response[index] = torch.stack(out.attentions)[:, 0, :, :, slice(*prompt.map_slice)]  # (L, K, T, V)
    finally:
        lvlm.hf_model.set_attn_implementation("sdpa")
    steps = lambda c: [prompt.length + token - 1 + later for token in c.coordinate_tokens]  # noqa: E731
    maps = [by_response[c.response][:, :, steps(c)].permute(2, 0, 1, 3) for c in candidates]
    return torch.stack(maps).unflatten(-1, prompt.grid).numpy()


@pytest.mark.parametrize("n", [1, 3, 16])
def test_maps_and_entropies_equal_a_full_eager_forward(lvlm, picture, n):
    prompt, samples, candidates = answered(lvlm, picture, n)
    assert len(candidates) == {1: 2, 3: 3, 16: 22}[n]
    record = capture(lvlm, prompt, samples, candidates, AttentionNeeds(maps=True, all_entropies=True))
    expected = eager_maps(lvlm, prompt, samples, candidates)
    assert record.maps.shape == (len(candidates), 4, 3, 4, *prompt.grid)
    assert record.maps.dtype == record.entropy.dtype == np.float32
    assert expected.max() > 0.02  # the weights compared are far from even
    assert np.abs(record.maps - expected).max() < 1e-5
    assert np.abs(record.entropy - entropy(expected)).max() < 1e-4
    assert record.grid == prompt.grid


@pytest.mark.parametrize("n", [1, 16])
def test_the_step_that_reads_the_token_is_the_next_position(lvlm, picture, n):
    prompt, samples, candidates = answered(lvlm, picture, n)
    needs = AttentionNeeds(maps=True, all_entropies=True, step="consuming")
    record = capture(lvlm, prompt, samples, candidates, needs)
    expected = eager_maps(lvlm, prompt, samples, candidates, later=1)
    assert np.abs(record.maps - expected).max() < 1e-5
    assert np.abs(record.entropy - entropy(expected)).max() < 1e-4
    assert np.abs(expected - eager_maps(lvlm, prompt, samples, candidates)).max() > 1e-4


@pytest.mark.parametrize("heads", [None, (((0, 0),),) * 4])
def test_token_entropies_are_those_of_the_first_tokens(lvlm, picture, heads):
    prompt = lvlm.prepare(picture, "key")
    forced = [lvlm.tokenizer(text)["input_ids"] for text in ANSWERS[:2]]
    samples = sample_responses(lvlm, prompt, SamplingConfig(num_samples=2), forced=forced, token_statistics=True)
    candidates, _ = find_candidates(lvlm, prompt, samples)
    needs = AttentionNeeds(heads=heads, token_statistics=True)
    found = capture(lvlm, prompt, samples, candidates, needs).tokens.entropy
    expected = [[samples.token_entropy[c.response][t] for t in c.coordinate_tokens] for c in candidates]
    assert found.tolist() == expected and found.shape == (3, 4) and (found > 0).all()
    assert capture(lvlm, prompt, samples, [], needs).tokens.entropy.shape == (0, 4)
    assert capture(lvlm, prompt, samples, candidates, AttentionNeeds()).tokens is None
    _, unsaid, _ = answered(lvlm, picture, 3)
    with pytest.raises(ValueError, match="without keeping them"):
        capture(lvlm, prompt, unsaid, candidates, needs)


def test_a_coordinate_may_be_the_very_first_token(lvlm, picture):
    prompt, samples, _ = answered(lvlm, picture, 3)
    candidates = [
        Candidate(Box(0, 0, 1, 1), "", 0, 0, (0, 1, 2, 3)),
        Candidate(Box(0, 0, 1, 1), "", 1, 0, (0, 0, 5, 5)),
    ]
    record = capture(lvlm, prompt, samples, candidates, AttentionNeeds(maps=True))
    assert np.abs(record.maps - eager_maps(lvlm, prompt, samples, candidates)).max() < 1e-5


def test_sampled_responses_too(lvlm, picture):
    """Not forced: whatever a draw wrote, with rows that end apart."""
    prompt = lvlm.prepare(picture, "key")
    samples = sample_responses(lvlm, prompt, SamplingConfig(num_samples=5, max_new_tokens=9, temperature=1.5, seed=1))
    candidates = [
        Candidate(Box(0, 0, 1, 1), "", i, 0, tuple(min(k, len(ids) - 1) for k in (0, 3, 5, 8)))
        for i, ids in enumerate(samples.response_ids)
    ]
    record = capture(lvlm, prompt, samples, candidates, AttentionNeeds(maps=True))
    assert np.abs(record.maps - eager_maps(lvlm, prompt, samples, candidates)).max() < 1e-5


HEADS = (((0, 1), (1, 3)), ((1, 0),), (), ((0, 0), (0, 1), (0, 2)))


def test_only_asked_entropies_are_given(lvlm, picture):
    prompt, samples, candidates = answered(lvlm, picture, 3)
    full = capture(lvlm, prompt, samples, candidates, AttentionNeeds(all_entropies=True)).entropy
    part = capture(lvlm, prompt, samples, candidates, AttentionNeeds(heads=HEADS))
    asked = np.zeros((4, 3, 4), bool)
    for c, pairs in enumerate(HEADS):
        for pair in pairs:
            asked[c][pair] = True
    assert part.maps is None
    assert not np.isnan(full).any()
    assert (np.isnan(part.entropy) == ~asked[None]).all()
    np.testing.assert_allclose(part.entropy[:, asked], full[:, asked], atol=1e-6)


def count_layers(lvlm, run):
    """Which layers of the language model finish their MLP during ``run()``."""
    seen = []
    hooks = [
        layer.mlp.register_forward_hook(lambda *_, index=index: seen.append(index))
        for index, layer in enumerate(lvlm.text_model.layers)
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def test_looking_runs_no_layer_again(lvlm, picture):
    prompt, samples, candidates = answered(lvlm, picture, 3)
    needs = AttentionNeeds(maps=True, all_entropies=True)
    assert count_layers(lvlm, lambda: capture(lvlm, prompt, samples, candidates, needs)) == []
    record = capture(lvlm, prompt, samples, [], AttentionNeeds(maps=True, map_size=(5, 6), all_entropies=True))
    assert (record.entropy.shape, record.maps.shape) == ((0, 4, 3, 4), (0, 4, 3, 4, 5, 6))


def test_responses_of_several_phrases_and_batches(lvlm, picture):
    """Several tails behind one trunk, rows in two batches, rows that end apart: still what an eager forward gives."""
    prompts = lvlm.prepare_many(picture, ["key", "a small dog behind the key"])
    config = SamplingConfig(max_new_tokens=11, temperature=1.5)
    state = prefill(lvlm, prompts)
    early, late = (draw_more(lvlm, state, config, [3, 4], rows) for rows in (range(4), range(4, 7)))
    for k, prompt in enumerate(prompts):
        samples = early[k].extended(late[k])
        candidates = [
            Candidate(Box(0, 0, 1, 1), "", i, 0, tuple(min(t, len(samples.response_ids[i]) - 1) for t in (0, 2, 5, 9)))
            for i in (6, 0, 3, 5)
        ]
        record = capture(lvlm, prompt, samples, candidates, AttentionNeeds(maps=True))
        assert np.abs(record.maps - eager_maps(lvlm, prompt, samples, candidates)).max() < 1e-5


def implementations(lvlm):
    config = lvlm.hf_model.config
    return tuple(c._attn_implementation for c in (config, config.text_config, config.vision_config))


def test_nothing_changes_by_looking(lvlm, picture):
    prompt, samples, candidates = answered(lvlm, picture, 3)
    needs = AttentionNeeds(maps=True, all_entropies=True)
    first = capture(lvlm, prompt, samples, candidates, needs)
    np.testing.assert_array_equal(capture(lvlm, prompt, samples, candidates, needs).maps, first.maps)
    assert implementations(lvlm) == ("sdpa", "sdpa", "sdpa")


def test_attention_is_restored_after_a_failure(lvlm, picture, monkeypatch):
    inside = []

    def fail(*_):
        inside.append(lvlm.text_model.config._attn_implementation)
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(SharedPrefixCache, "attend", fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        answered(lvlm, picture, 3)
    assert inside == [IMPLEMENTATION]
    assert implementations(lvlm) == ("sdpa", "sdpa", "sdpa")


def test_chunks_change_nothing(lvlm, picture, monkeypatch):
    prompt, samples, candidates = answered(lvlm, picture, 3)
    needs = AttentionNeeds(maps=True, all_entropies=True)
    whole = capture(lvlm, prompt, samples, candidates, needs)
    monkeypatch.setattr(module, "_CHUNK_BYTES", 1)
    pieces = capture(lvlm, prompt, samples, candidates, needs)
    np.testing.assert_allclose(pieces.maps, whole.maps, atol=1e-6)
    np.testing.assert_allclose(pieces.entropy, whole.entropy, atol=1e-5)


@pytest.mark.parametrize("heads", [None, HEADS, (((0, 1),), ((2, 1), (2, 3)), (), ())], ids=["all", "some", "gap"])
def test_several_layers_at_once_change_nothing(lvlm, picture, monkeypatch, heads):
    """As on a GPU: all layers in one operation."""
    prompt, samples, candidates = answered(lvlm, picture, 16)
    needs = AttentionNeeds(heads=heads, maps=heads is None, all_entropies=heads is None)
    one_by_one = capture(lvlm, prompt, samples, candidates, needs)
    monkeypatch.setattr(module, "_layers_at_once", lambda device: 99)
    together = capture(lvlm, prompt, samples, candidates, needs)
    np.testing.assert_allclose(together.entropy, one_by_one.entropy, atol=1e-5)
    if heads is None:
        np.testing.assert_allclose(together.maps, one_by_one.maps, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_a_half_precision_model_are_those_of_float32(dtype):
    """The same rounded queries and keys, scored in float64, give the same weights: no score was rounded again."""
    count, heads, groups, slots, own, dim = 6, 4, 2, 40, 5, 32
    draw = torch.Generator().manual_seed(0)
    query = (3 * torch.randn(1, count, heads, dim, generator=draw)).to(dtype)
    prompt = (3 * torch.randn(groups, slots, dim, generator=draw)).to(dtype)
    answer = (3 * torch.randn(3, groups, own, dim, generator=draw)).to(dtype)
    prefix_cache = SharedPrefixCache(CacheSegment((prompt,), (prompt,)), [None], [3])
    prefix_cache.keys, prefix_cache.lengths = [answer], [own] * 3
    rows, seen = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 2, 1, 5, 3, 4])
    batch = module._Batch(prefix_cache, rows)
    queries = module._Queries((prefix_cache.prefix,), (batch,), query, seen, own, torch.empty(0))
    found = queries.weights([0], slice(None), dim**-0.5)[:, 0]

    keys = torch.cat([prompt.expand(count, -1, -1, -1), answer[rows]], dim=2).double()
    keys = keys.repeat_interleave(heads // groups, dim=1)  # (P, K, S + T, D)
    scores = (query[0].double()[:, :, None] @ keys.transpose(-1, -2))[:, :, 0] * dim**-0.5
    hidden = torch.arange(slots + own) >= slots + seen[:, None]
    expected = scores.masked_fill(hidden[:, None], -torch.inf).softmax(-1)
    assert scores.max() > 20  # where bfloat16 steps by 0.125
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-4, atol=1e-9)


def test_maps_at_another_size(lvlm, picture):
    prompt, samples, candidates = answered(lvlm, picture, 3)
    native = capture(lvlm, prompt, samples, candidates, AttentionNeeds(maps=True)).maps
    sized = capture(lvlm, prompt, samples, candidates, AttentionNeeds(maps=True, map_size=(6, 10)))
    assert sized.maps.shape == (*native.shape[:4], 6, 10)
    np.testing.assert_allclose(sized.maps.sum((-2, -1)), native.sum((-2, -1)), rtol=1e-4)
    assert np.isnan(sized.entropy).all()


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ((((3, 0),), (), (), ()), r"\(3, 0\) is not in a model of 3 layers"),
        ((((0, 4),), (), (), ()), "0-based"),
        (((),), "x1"),
    ],
)
def test_impossible_heads_are_named(lvlm, picture, heads, message):
    prompt, samples, candidates = answered(lvlm, picture, 3)
    with pytest.raises(ValueError, match=message):
        capture(lvlm, prompt, samples, candidates, AttentionNeeds(heads=heads))


def test_threads_may_share_a_model(lvlm, picture):
    def work(seed):
        prompt = lvlm.prepare(np.roll(picture, seed * 10, axis=1), "key")
        samples = sample_responses(
            lvlm, prompt, SamplingConfig(num_samples=2, max_new_tokens=6, temperature=1.0, seed=seed)
        )
        candidates = [Candidate(Box(0, 0, 1, 1), "", i, 0, (0, 0, 0, 0)) for i in range(2)]
        return samples.response_ids, capture(lvlm, prompt, samples, candidates, AttentionNeeds(maps=True)).maps

    alone = [work(seed) for seed in range(6)]
    with ThreadPoolExecutor(3) as pool:
        for (ids, maps), (own_ids, own_maps) in zip(pool.map(work, range(6)), alone, strict=True):
            assert ids == own_ids
            np.testing.assert_allclose(maps, own_maps, atol=1e-6)


@pytest.mark.parametrize(("maps", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_known_maps(maps, expected):
    assert entropy(np.array(maps)) == pytest.approx(expected, abs=1e-12)
    assert row_entropy(torch.tensor(maps).flatten()).item() == pytest.approx(expected, abs=1e-6)


def test_leading_axes_are_kept():
    maps = np.random.default_rng(0).random((2, 4, 3, 5, 6))
    assert entropy(maps).shape == (2, 4, 3)
    assert entropy(maps)[1, 2, 0] == pytest.approx(float(entropy(maps[1, 2, 0])))


@settings(max_examples=50)
@given(arrays(np.float32, (3, 4), elements=st.floats(0, 1, width=32)), st.floats(0.01, 100))
def test_bounds_and_scale(maps, factor):
    value = float(entropy(maps))
    assert -1e-9 <= value <= math.log(12) + 1e-9
    assert float(entropy(maps * np.float64(factor))) == pytest.approx(value, abs=1e-6)
    assert row_entropy(torch.tensor(maps).flatten()).item() == pytest.approx(value, abs=1e-4)


def test_resizing_maps():
    maps = torch.arange(24.0).view(1, 4, 6)
    assert resize_maps(maps, (4, 6)) is maps
    halved = resize_maps(maps, (2, 3))
    # Area averaging times 4, since four cells' mass goes into one.
    assert torch.allclose(halved[0, 0], torch.tensor([0.0 + 1 + 6 + 7, 2.0 + 3 + 8 + 9, 4.0 + 5 + 10 + 11]))
    spot = torch.zeros(1, 4, 6)
    spot[0, 3, 1] = 0.5
    for size in ((8, 12), (2, 3), (3, 9), (24, 24)):
        sized = resize_maps(spot, size)
        assert sized.sum().item() == pytest.approx(0.5)
        row, column = np.unravel_index(int(sized.argmax()), size)
        assert ((row + 0.5) / size[0], (column + 0.5) / size[1]) == pytest.approx((3.5 / 4, 1.5 / 6), abs=0.13)
    assert torch.equal(resize_maps(torch.zeros(2, 4, 6), (3, 3)), torch.zeros(2, 3, 3))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_entropy_of_what_is_no_map_is_nan_and_no_even_spread(value):
    maps = np.ones((2, 3, 3), np.float32)
    maps[1, 1, 1] = value
    for found in (entropy(maps), row_entropy(torch.tensor(maps).flatten(1)).numpy()):
        assert found[0] == pytest.approx(np.log(9)) and np.isnan(found[1])


def test_a_map_of_zeros_has_the_entropy_of_an_even_spread():
    zeros = np.zeros((3, 4), np.float32)
    assert entropy(zeros) == pytest.approx(np.log(12))
    assert row_entropy(torch.tensor(zeros).flatten()).item() == pytest.approx(np.log(12))


def test_even_attention_keeps_the_mean_mass_and_nothing_else():
    rng = np.random.default_rng(0)
    maps = rng.random((3, 4, 2, 2, 5, 7)).astype(np.float32)
    entropy = rng.random((3, 4, 2, 2)).astype(np.float32)
    entropy[0, 0, 0, 0] = np.nan
    tokens = TokenStatistics.of((), {}, {})
    even = AttentionRecord(entropy, maps, (4, 6), tokens, 5).evened()
    assert (np.ptp(even.maps.reshape(-1, 35), axis=1) == 0).all() and even.maps.dtype == np.float32
    assert (even.maps == even.maps[:1]).all()  # the mass of a candidate's own map is attention, too
    np.testing.assert_allclose(even.maps[0].sum(axis=(-2, -1)), maps.sum(axis=(-2, -1)).mean(axis=0), rtol=1e-3)
    assert np.isnan(even.entropy[0, 0, 0, 0]) and np.nanmin(even.entropy) == np.nanmax(even.entropy)
    assert np.nanmax(even.entropy) == pytest.approx(math.log(24))
    assert (even.tokens, even.num_responses, even.grid) == (tokens, 5, (4, 6))


def test_even_attention_has_the_same_share_in_boxes_of_the_same_size():
    """To the last digit: equal qualities are ties, which rounding must not decide."""
    maps = np.random.default_rng(1).random((8, 4, 3, 2, 16, 16)).astype(np.float32) ** 4
    even = AttentionRecord(np.zeros((8, 4, 3, 2), np.float32), maps, (16, 16)).evened()
    boxes = [Candidate(Box(10 * i, 20, 10 * i + 20, 60), "", i, 0, (1, 2, 3, 4)) for i in range(8)]
    assert np.abs(attention_in_boxes(boxes, even.maps, (160, 160))).max() < 1e-9


def test_a_record_without_maps_can_be_made_even():
    even = AttentionRecord(np.zeros((2, 4, 1, 1), np.float32), None, (2, 2)).evened()
    assert even.maps is None and even.entropy.shape == (2, 4, 1, 1)
