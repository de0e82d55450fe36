"""What is looked at once equals what a full eager forward gives."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from acs_core import attention as module
from acs_core import lookout
from acs_core.attention import AttentionNeeds, capture
from acs_core.candidates import find_candidates
from acs_core.entropy import entropy
from acs_core.geometry import Box
from acs_core.lookout import resize_maps
from acs_core.sampling import sample
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


def eager_maps(lvlm, prompt, samples, candidates):
    """The same maps (C, 4, L, K, Hv, Wv) from full forwards, one response at a time, with eager attention."""
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
    steps = lambda c: [prompt.length + token - 1 for token in c.coordinate_tokens]  # noqa: E731
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


def test_the_forward_ends_at_the_deepest_asked_layer(lvlm, picture):
    prompt, samples, candidates = answered(lvlm, picture, 3)
    look = lambda **needs: count_layers(  # noqa: E731
        lvlm, lambda: capture(lvlm, prompt, samples, candidates, AttentionNeeds(**needs))
    )
    assert look(heads=(((0, 1),), (), (), ())) == []
    assert look(heads=HEADS) == [0]
    assert look(maps=True) == [0, 1]
    assert look() == []


def test_no_candidates_no_forward(lvlm, picture):
    prompt, samples, _ = answered(lvlm, picture, 3)
    needs = AttentionNeeds(maps=True, map_size=(5, 6), all_entropies=True)
    assert count_layers(lvlm, lambda: capture(lvlm, prompt, samples, [], needs)) == []
    evidence = capture(lvlm, prompt, samples, [], needs)
    assert (evidence.entropy.shape, evidence.maps.shape) == ((0, 4, 3, 4), (0, 4, 3, 4, 5, 6))


def test_capture_leaves_no_trace(lvlm, picture):
    prompt, samples, candidates = answered(lvlm, picture, 3)
    keys = [layer.keys.clone() for layer in samples.cache.layers]
    implementations = lambda: (  # noqa: E731
        lvlm.hf_model.config._attn_implementation,
        lvlm.hf_model.config.text_config._attn_implementation,
        lvlm.hf_model.config.vision_config._attn_implementation,
    )
    assert implementations() == ("sdpa", "sdpa", "sdpa")
    needs = AttentionNeeds(maps=True, all_entropies=True)
    first = capture(lvlm, prompt, samples, candidates, needs)
    assert implementations() == ("sdpa", "sdpa", "sdpa")
    assert all(torch.equal(layer.keys, key) for layer, key in zip(samples.cache.layers, keys, strict=True))
    np.testing.assert_array_equal(capture(lvlm, prompt, samples, candidates, needs).maps, first.maps)


def test_attention_is_restored_after_a_failure(lvlm, picture, monkeypatch):
    prompt, samples, candidates = answered(lvlm, picture, 3)
    inside = []

    def fail(*_):
        inside.append(lvlm.text_model.config._attn_implementation)
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(module.Recorder, "record", fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        capture(lvlm, prompt, samples, candidates, AttentionNeeds(maps=True))
    assert inside == [lookout.IMPLEMENTATION]
    assert lvlm.text_model.config._attn_implementation == "sdpa"


def test_chunks_change_nothing(lvlm, picture, monkeypatch):
    prompt, samples, candidates = answered(lvlm, picture, 3)
    needs = AttentionNeeds(maps=True, all_entropies=True)
    whole = capture(lvlm, prompt, samples, candidates, needs)
    monkeypatch.setattr(lookout, "_CHUNK_BYTES", 1)
    pieces = capture(lvlm, prompt, samples, candidates, needs)
    np.testing.assert_allclose(pieces.maps, whole.maps, atol=1e-6)
    np.testing.assert_allclose(pieces.entropy, whole.entropy, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_a_half_precision_model_are_those_of_float32(dtype):
    """The same rounded queries and keys, scored in float64, give the same weights: no score was rounded again."""
    n, heads, groups, queries, slots, dim = 2, 4, 2, 3, 40, 32
    draw = torch.Generator().manual_seed(0)
    query = (3 * torch.randn(n, heads, queries, dim, generator=draw)).to(dtype)
    key = (3 * torch.randn(n, groups, slots, dim, generator=draw)).to(dtype)
    mask = torch.arange(slots).expand(n, 1, queries, slots) < 37
    rows, columns = (
        places.flatten() for places in torch.meshgrid(torch.arange(n), torch.arange(queries), indexing="ij")
    )
    look = lookout.Look(rows, columns, (5, 35), (5, 6))
    recorder = lookout.Recorder(look, (1, heads), {0: range(heads)}, (5, 6))
    with pytest.raises(lookout.DeepestLayerSeen):
        recorder.record(0, query, key, mask, dim**-0.5)

    repeated = key.double().repeat_interleave(heads // groups, dim=1)
    scores = (query.double() @ repeated.transpose(-1, -2) * dim**-0.5).masked_fill(~mask, -torch.inf)
    expected = scores.softmax(-1)[..., 5:35].transpose(1, 2).reshape(n * queries, heads, 5, 6)
    assert scores.max() > 20  # where bfloat16 steps by 0.125
    np.testing.assert_allclose(recorder.maps[:, 0].numpy(), expected.numpy(), rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(recorder.entropy[:, 0].numpy(), entropy(expected.numpy()), atol=1e-4)


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
