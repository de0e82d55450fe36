"""What is looked at once equals what a full eager forward gives."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from acs_core import attention as module
from acs_core.attention import AttentionNeeds, capture
from acs_core.branches import IMPLEMENTATION, Branches, Segment
from acs_core.candidates import find_candidates
from acs_core.entropy import entropy
from acs_core.geometry import Box
from acs_core.reading import read
from acs_core.sampling import draw_more, sample
from acs_core.types import Candidate, SamplingConfig

ANSWERS = [
    "[10, 20, 300, 40]",
    '[{"bbox_2d": [1, 2, 30, 40], "label": "key"}, {"bbox_2d": [15, 24, 350, 46], "label": "key"}]',
    "[]",
    "(5, 6), (700, 800) and [[1, 2, 30, 40], [3, 4, 50, 60], [5, 6, 70, 80]]",
    "no idea",
]


def answered(lvlm, picture, n, phrase="key"):
    """A prompt, N forced answers of different lengths, and their candidates."""
    prompt = lvlm.prepare(picture, phrase)
    texts = [ANSWERS[(i + (n == 1)) % len(ANSWERS)] for i in range(n)]
    forced = [lvlm.tokenizer(text)["input_ids"] for text in texts]
    samples = sample(lvlm, prompt, SamplingConfig(num_samples=n), forced=forced)
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
    evidence = capture(lvlm, prompt, samples, candidates, AttentionNeeds(maps=True, all_entropies=True))
    expected = eager_maps(lvlm, prompt, samples, candidates)
    assert evidence.maps.shape == (len(candidates), 4, 3, 4, *prompt.grid)
    assert evidence.maps.dtype == evidence.entropy.dtype == np.float32
    assert expected.max() > 0.02  # the weights compared are far from even
    assert np.abs(evidence.maps - expected).max() < 1e-5
    assert np.abs(evidence.entropy - entropy(expected)).max() < 1e-4
    assert evidence.grid == prompt.grid


@pytest.mark.parametrize("n", [1, 16])
def test_the_step_that_reads_the_token_is_the_next_position(lvlm, picture, n):
    prompt, samples, candidates = answered(lvlm, picture, n)
    needs = AttentionNeeds(maps=True, all_entropies=True, step="consuming")
    evidence = capture(lvlm, prompt, samples, candidates, needs)
    expected = eager_maps(lvlm, prompt, samples, candidates, later=1)
    assert np.abs(evidence.maps - expected).max() < 1e-5
    assert np.abs(evidence.entropy - entropy(expected)).max() < 1e-4
    assert np.abs(expected - eager_maps(lvlm, prompt, samples, candidates)).max() > 1e-4


@pytest.mark.parametrize("heads", [None, (((0, 0),),) * 4])
def test_token_entropies_are_those_of_the_first_tokens(lvlm, picture, heads):
    prompt = lvlm.prepare(picture, "key")
    forced = [lvlm.tokenizer(text)["input_ids"] for text in ANSWERS[:2]]
    samples = sample(lvlm, prompt, SamplingConfig(num_samples=2), forced=forced, token_entropy=True)
    candidates, _ = find_candidates(lvlm, prompt, samples)
    needs = AttentionNeeds(heads=heads, token_entropy=True)
    found = capture(lvlm, prompt, samples, candidates, needs).token_entropy
    expected = [[samples.token_entropy[c.response][t] for t in c.coordinate_tokens] for c in candidates]
    assert found.tolist() == expected and found.shape == (3, 4) and (found > 0).all()
    assert capture(lvlm, prompt, samples, [], needs).token_entropy.shape == (0, 4)
    assert capture(lvlm, prompt, samples, candidates, AttentionNeeds()).token_entropy is None
    _, unsaid, _ = answered(lvlm, picture, 3)
    with pytest.raises(ValueError, match="without keeping them"):
        capture(lvlm, prompt, unsaid, candidates, needs)


def test_a_coordinate_may_be_the_very_first_token(lvlm, picture):
    prompt, samples, _ = answered(lvlm, picture, 3)
    candidates = [
        Candidate(Box(0, 0, 1, 1), "", 0, 0, (0, 1, 2, 3)),
        Candidate(Box(0, 0, 1, 1), "", 1, 0, (0, 0, 5, 5)),
    ]
    evidence = capture(lvlm, prompt, samples, candidates, AttentionNeeds(maps=True))
    assert np.abs(evidence.maps - eager_maps(lvlm, prompt, samples, candidates)).max() < 1e-5


def test_sampled_responses_too(lvlm, picture):
    """Not forced: whatever a draw wrote, with rows that end apart."""
    prompt = lvlm.prepare(picture, "key")
    samples = sample(lvlm, prompt, SamplingConfig(num_samples=5, max_new_tokens=9, temperature=1.5, seed=1))
    candidates = [
        Candidate(Box(0, 0, 1, 1), "", i, 0, tuple(min(k, len(ids) - 1) for k in (0, 3, 5, 8)))
        for i, ids in enumerate(samples.response_ids)
    ]
    evidence = capture(lvlm, prompt, samples, candidates, AttentionNeeds(maps=True))
    assert np.abs(evidence.maps - eager_maps(lvlm, prompt, samples, candidates)).max() < 1e-5


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
    evidence = capture(lvlm, prompt, samples, [], AttentionNeeds(maps=True, map_size=(5, 6), all_entropies=True))
    assert (evidence.entropy.shape, evidence.maps.shape) == ((0, 4, 3, 4), (0, 4, 3, 4, 5, 6))


def test_responses_of_several_phrases_and_batches(lvlm, picture):
    """Several tails behind one trunk, rows in two batches, rows that end apart: still what an eager forward gives."""
    prompts = lvlm.prepare_many(picture, ["key", "a small dog behind the key"])
    config = SamplingConfig(max_new_tokens=11, temperature=1.5)
    reading = read(lvlm, prompts)
    early, late = (draw_more(lvlm, reading, config, [3, 4], rows) for rows in (range(4), range(4, 7)))
    for k, prompt in enumerate(prompts):
        samples = early[k].extended(late[k])
        candidates = [
            Candidate(Box(0, 0, 1, 1), "", i, 0, tuple(min(t, len(samples.response_ids[i]) - 1) for t in (0, 2, 5, 9)))
            for i in (6, 0, 3, 5)
        ]
        evidence = capture(lvlm, prompt, samples, candidates, AttentionNeeds(maps=True))
        assert np.abs(evidence.maps - eager_maps(lvlm, prompt, samples, candidates)).max() < 1e-5


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

    monkeypatch.setattr(Branches, "attend", fail)
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_a_half_precision_model_are_those_of_float32(dtype):
    """The same rounded queries and keys, scored in float64, give the same weights: no score was rounded again."""
    count, heads, groups, slots, own, dim = 6, 4, 2, 40, 5, 32
    draw = torch.Generator().manual_seed(0)
    query = (3 * torch.randn(1, count, heads, dim, generator=draw)).to(dtype)
    prompt = (3 * torch.randn(groups, slots, dim, generator=draw)).to(dtype)
    answer = (3 * torch.randn(3, groups, own, dim, generator=draw)).to(dtype)
    branches = Branches(Segment((prompt,), (prompt,)), [None], [3])
    branches.keys, branches.length = [answer], own
    rows, seen = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 2, 1, 5, 3, 4])
    queries = module._Queries((branches.trunk,), (module._Batch(branches, rows),), query, seen, torch.empty(0))
    found = queries.weights(0, slice(None), dim**-0.5)

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
        samples = sample(lvlm, prompt, SamplingConfig(num_samples=2, max_new_tokens=6, temperature=1.0, seed=seed))
        candidates = [Candidate(Box(0, 0, 1, 1), "", i, 0, (0, 0, 0, 0)) for i in range(2)]
        return samples.response_ids, capture(lvlm, prompt, samples, candidates, AttentionNeeds(maps=True)).maps

    alone = [work(seed) for seed in range(6)]
    with ThreadPoolExecutor(3) as pool:
        for (ids, maps), (own_ids, own_maps) in zip(pool.map(work, range(6)), alone, strict=True):
            assert ids == own_ids
            np.testing.assert_allclose(maps, own_maps, atol=1e-6)
