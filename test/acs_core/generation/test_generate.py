"""Reading the prompt once changes nothing about what is drawn."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from acs_core.attention import AttentionNeeds, capture
from acs_core.errors import Cancelled
from acs_core.generation.generate import draw_more
from acs_core.generation.prefill import prefill, stack_states
from acs_core.generation.sample import greedy_response, sample_each, sample_responses
from acs_core.generation.token_sampler import GreedySampler, TeacherForcing, TopPSampler, kept_tokens
from acs_core.geometry import Box
from acs_core.types import Candidate, SamplingConfig

VOCABULARY = 50


@pytest.fixture(scope="module")
def prompt(lvlm, picture):
    return lvlm.prepare(picture, "key")


def stock(lvlm, picture, **settings):
    """Response ids of transformers' own generate, with the model's own position ids, up to the end token."""
    prompt = lvlm.prepare(picture, "key")
    inputs = {"input_ids": prompt.input_ids, "attention_mask": torch.ones_like(prompt.input_ids), **prompt.vision}
    if lvlm.family != "internvl":
        inputs["mm_token_type_ids"] = (prompt.input_ids == lvlm.hf_model.config.image_token_id).int()
    config = GenerationConfig(eos_token_id=list(lvlm.eos_ids), pad_token_id=lvlm.pad_id, **settings)
    with torch.no_grad():
        rows = lvlm.hf_model.generate(**inputs, generation_config=config)[:, prompt.length :].tolist()
    eos = lvlm.eos_ids[0]
    return [tuple(row[: row.index(eos)] if eos in row else row) for row in rows]


def test_greedy_equals_stock_generate(lvlm, prompt, picture):
    ours = greedy_response(lvlm, prompt, max_new_tokens=24)
    assert list(ours.response_ids) == stock(lvlm, picture, do_sample=False, max_new_tokens=24)
    assert (ours.num_samples, ours.seed) == (1, 0)


def replayed(lvlm, prompt, config, row):
    """Response ``row`` drawn anew, token by token, each from a full forward over everything before it, with
    transformers' own cuts and the numbers that the documentation promises."""
    numbers = torch.rand(row + 1, config.max_new_tokens, generator=torch.Generator().manual_seed(config.seed))[row]
    cuts = [
        TemperatureLogitsWarper(config.temperature),
        TopKLogitsWarper(config.top_k),
        TopPLogitsWarper(config.top_p),
    ]
    ids, answer = prompt.input_ids, []
    for number in numbers:
        text = torch.arange(prompt.next_position, prompt.next_position + len(answer))
        text = text.expand(*prompt.position_ids.shape[:-1], len(answer))
        with torch.no_grad():
            scores = lvlm.hf_model(
                input_ids=ids, position_ids=torch.cat([prompt.position_ids, text], dim=-1), **prompt.vision
            ).logits[:, -1]
        for cut in cuts:
            scores = cut(ids, scores)
        likely, order = scores[0].softmax(-1).sort(descending=True, stable=True)
        token = int(order[(likely.cumsum(0) <= number).sum()])
        if token in lvlm.eos_ids:
            break
        answer.append(token)
        ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
    return tuple(answer)


@pytest.mark.parametrize("n", [1, 3, 16])
def test_sampling_equals_a_draw_from_full_forwards(lvlm, prompt, n):
    config = SamplingConfig(num_samples=n, temperature=0.7, top_p=0.9, top_k=40, max_new_tokens=12, seed=5)
    ours = sample_responses(lvlm, prompt, config)
    assert len(ours.response_ids) == n
    for row in {0, n // 2, n - 1}:
        assert ours.response_ids[row] == replayed(lvlm, prompt, config, row)


def test_a_response_does_not_depend_on_how_many_are_drawn(lvlm, prompt):
    config = SamplingConfig(num_samples=9, temperature=1.2, max_new_tokens=14, seed=3)
    nine = sample_responses(lvlm, prompt, config)
    assert sample_responses(lvlm, prompt, replace(config, num_samples=4)).response_ids == nine.response_ids[:4]
    state = prefill(lvlm, [prompt])
    (first,) = draw_more(lvlm, state, config, [3], range(2))
    (rest,) = draw_more(lvlm, state, config, [3], range(2, 9))
    joined = first.extended(rest)
    assert (joined.response_ids, joined.finished, joined.seed) == (nine.response_ids, nine.finished, 3)
    assert joined.num_samples == 9


def test_phrases_about_one_picture_are_answered_as_if_alone(lvlm, picture):
    phrases = ["key", "dog", "a very small dog behind the key"]
    config = SamplingConfig(num_samples=5, temperature=1.2, max_new_tokens=14)
    together = draw_more(lvlm, prefill(lvlm, lvlm.prepare_many(picture, phrases)), config, [1, 2, 3], range(5))
    for seed, phrase, ours in zip((1, 2, 3), phrases, together, strict=True):
        alone = sample_responses(lvlm, lvlm.prepare(picture, phrase), replace(config, seed=seed))
        assert (ours.response_ids, ours.finished, ours.seed) == (alone.response_ids, alone.finished, seed)


@pytest.mark.parametrize("drawn", [True, False], ids=["samples", "greedy"])
def test_questions_about_different_pictures_are_answered_as_if_alone(lvlm, picture, drawn):
    pictures, phrases = [picture, np.flip(picture, 0).copy(), picture[:, :90].copy()], ["key", "dog", "a small key"]
    prompts = [lvlm.prepare(image, phrase) for image, phrase in zip(pictures, phrases, strict=True)]
    config = SamplingConfig(num_samples=4, temperature=1.2, max_new_tokens=14) if drawn else None
    together = sample_each(
        lvlm, [prefill(lvlm, [prompt]) for prompt in prompts], config, [5, 6, 7], 14, token_statistics=True
    )
    for seed, image, phrase, ours in zip((5, 6, 7), pictures, phrases, together, strict=True):
        prompt = lvlm.prepare(image, phrase)
        own = replace(config, seed=seed) if config else None
        alone = (
            sample_responses(lvlm, prompt, own, token_statistics=True)
            if own
            else greedy_response(lvlm, prompt, 14, token_statistics=True)
        )
        assert (ours.response_ids, ours.finished, ours.seed) == (alone.response_ids, alone.finished, alone.seed)
        for name in ("token_entropy", "token_logprob"):
            for a, b in zip(getattr(ours, name), getattr(alone, name), strict=True):
                np.testing.assert_allclose(a, b, atol=1e-4)
        candidates = [Candidate(Box(0, 0, 1, 1), "", r, 0, (0, 1, 2, 3)) for r in range(ours.num_samples)]
        needs = AttentionNeeds(maps=True, all_entropies=True)
        mine, theirs = (
            capture(lvlm, p, s, candidates, needs) for p, s in ((ours.state.prompts[0], ours), (prompt, alone))
        )
        np.testing.assert_allclose(mine.maps, theirs.maps, atol=1e-5)
        np.testing.assert_allclose(mine.entropy, theirs.entropy, atol=1e-4)


def test_only_readings_of_one_prompt_stand_side_by_side(lvlm, picture):
    two = prefill(lvlm, lvlm.prepare_many(picture, ["key", "dog"]))
    for prefill_states in ([], [two]):
        with pytest.raises(ValueError, match="one prompt each"):
            stack_states(prefill_states)


def test_cut_responses_stay_as_they_are(lvlm, prompt):
    config = SamplingConfig(num_samples=3, max_new_tokens=14, temperature=1.2, seed=8)
    whole = sample_responses(lvlm, prompt, config)
    asked = []
    (cut,) = draw_more(
        lvlm, prefill(lvlm, [prompt]), config, [8], range(3), cut_when=lambda: asked.append(1) or len(asked) > 5
    )
    assert cut.response_ids == tuple(ids[:5] for ids in whole.response_ids)
    short = [done and len(ids) < 5 for ids, done in zip(whole.response_ids, whole.finished, strict=True)]
    assert list(cut.finished) == short


def test_seed_repeats_and_matters(lvlm, prompt):
    def draw(seed):
        config = SamplingConfig(num_samples=4, max_new_tokens=8, temperature=1.0, seed=seed)
        return sample_responses(lvlm, prompt, config)

    assert draw(3).response_ids == draw(3).response_ids
    assert draw(3).response_ids != draw(4).response_ids
    fresh = draw(None)
    assert draw(fresh.seed).response_ids == fresh.response_ids
    assert fresh.seed != draw(None).seed


def test_random_state_of_the_caller_is_untouched(lvlm, prompt):
    states = lambda: (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist())  # noqa: E731
    before = states()
    sample_responses(lvlm, prompt, SamplingConfig(num_samples=2, max_new_tokens=4))
    with pytest.raises(Cancelled):
        sample_responses(lvlm, prompt, SamplingConfig(num_samples=2, max_new_tokens=4), should_stop=lambda: True)
    assert states() == before


def test_prompts_do_not_influence_each_other(lvlm, prompt):
    """The model keeps rope offsets of an earlier prompt; ours must not read them."""
    alone = greedy_response(lvlm, prompt, max_new_tokens=12).response_ids
    greedy_response(lvlm, lvlm.prepare(np.zeros((60, 400, 3), np.uint8), "small red dog"), max_new_tokens=3)
    assert greedy_response(lvlm, prompt, max_new_tokens=12).response_ids == alone


def test_stopping(lvlm, prompt):
    asked = []

    def after_three():
        asked.append(1)
        return len(asked) > 3

    with pytest.raises(Cancelled, match="while the model was answering"):
        sample_responses(lvlm, prompt, SamplingConfig(num_samples=2, max_new_tokens=50), should_stop=after_three)
    assert len(asked) == 4
    with pytest.raises(Cancelled, match="before the model read"):
        greedy_response(lvlm, prompt, should_stop=lambda: True)


def test_forced_responses_of_different_length(lvlm, prompt):
    rows = [(70, 71, 72, 73), (), (80,)]
    out = sample_responses(lvlm, prompt, SamplingConfig(num_samples=3, max_new_tokens=2), forced=rows)
    assert out.response_ids == tuple(rows)
    assert out.finished == (True, True, True)
    with pytest.raises(ValueError, match="2 rows for 3 samples"):
        sample_responses(lvlm, prompt, SamplingConfig(num_samples=3), forced=rows[:2])


def test_responses_are_cut_at_max_new_tokens(lvlm, prompt):
    out = sample_responses(lvlm, prompt, SamplingConfig(num_samples=3, max_new_tokens=5, seed=0))
    for ids, finished in zip(out.response_ids, out.finished, strict=True):
        assert len(ids) < 5 if finished else len(ids) == 5
        assert not set(ids) & set(lvlm.eos_ids)


def test_entropy_and_log_probability_of_tokens(lvlm, prompt):
    config = SamplingConfig(num_samples=3, max_new_tokens=6, temperature=0.3, top_k=5, seed=2)
    out = sample_responses(lvlm, prompt, config, token_statistics=True)
    assert out.response_ids == sample_responses(lvlm, prompt, config).response_ids
    assert sample_responses(lvlm, prompt, config).token_entropy is None
    steps = len(out.response_ids[0])
    ids = torch.cat([prompt.input_ids, torch.tensor([out.response_ids[0]])], dim=1)
    text = torch.arange(prompt.next_position, prompt.next_position + steps).expand(
        *prompt.position_ids.shape[:-1], steps
    )
    with torch.no_grad():
        positions = torch.cat([prompt.position_ids, text], dim=-1)
        logits = lvlm.hf_model(input_ids=ids, position_ids=positions, **prompt.vision).logits[0, prompt.length - 1 : -1]
    expected = torch.distributions.Categorical(logits=logits).entropy()
    assert out.token_entropy[0] == pytest.approx(expected.tolist(), abs=1e-4)
    written = logits.log_softmax(dim=-1).gather(1, torch.tensor([out.response_ids[0]]).T)[:, 0]
    assert out.token_logprob[0] == pytest.approx(written.tolist(), abs=1e-4)
    assert [len(p) for p in out.token_logprob] == [len(r) for r in out.response_ids]
    assert [len(e) for e in out.token_entropy] == [len(r) for r in out.response_ids]


def stock_probabilities(logits, config):
    scores = TemperatureLogitsWarper(config.temperature)(None, logits)
    if config.top_k:
        scores = TopKLogitsWarper(config.top_k)(None, scores)
    if config.top_p < 1:
        scores = TopPLogitsWarper(config.top_p)(None, scores)
    return scores.softmax(dim=-1)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    temperature=st.sampled_from([0.2, 0.5, 1.0, 3.0]),
    top_k=st.sampled_from([0, 1, 7, VOCABULARY, 900]),
    top_p=st.sampled_from([0.05, 0.5, 0.9, 1.0]),
)
def test_kept_tokens_are_those_of_the_stock_cuts(seed, temperature, top_k, top_p):
    config = SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p)
    logits = 3 * torch.randn(4, VOCABULARY, generator=torch.Generator().manual_seed(seed))
    ids, kept = kept_tokens(logits, config)
    ours = torch.zeros(4, VOCABULARY).scatter(1, ids, kept)
    ours = ours / ours.sum(dim=-1, keepdim=True)
    torch.testing.assert_close(ours, stock_probabilities(logits, config), atol=1e-5, rtol=1e-4)


def test_shares_of_draws_follow_the_probabilities():
    config = SamplingConfig(temperature=1.0, top_p=0.9, top_k=6, max_new_tokens=4000)
    logits = torch.randn(1, VOCABULARY, generator=torch.Generator().manual_seed(1))
    draw = TopPSampler.of(config, [5], range(1))
    tokens = torch.cat([draw.pick(logits, torch.tensor([0]), torch.tensor([step])) for step in range(4000)])
    shares = torch.bincount(tokens, minlength=VOCABULARY) / 4000
    assert (shares - stock_probabilities(logits, config)[0]).abs().max() < 0.03


@pytest.mark.parametrize("number", [0.0, 0.5, 1.0 - 2**-24])
def test_a_token_without_probability_is_never_drawn(number):
    config = SamplingConfig(temperature=1.0, top_p=0.7, top_k=0)
    logits = torch.tensor([[2.0, 1.0, 0.0, -torch.inf, -torch.inf]])
    draw = TopPSampler(config, torch.full((1, 1), number))
    assert draw.pick(logits, torch.tensor([0]), torch.tensor([0])).item() in (0, 1)


def test_logits_that_are_no_numbers_do_not_break_the_draw():
    draw = TopPSampler.of(SamplingConfig(max_new_tokens=2), [0], range(1))
    token = draw.pick(torch.full((1, VOCABULARY), torch.nan), torch.tensor([0]), torch.tensor([0]))
    assert 0 <= token.item() < VOCABULARY


def test_streams_belong_to_seed_and_response():
    config = SamplingConfig(max_new_tokens=6)
    whole = TopPSampler.of(config, [3, 4], range(5)).streams  # (10, 6)
    assert torch.equal(TopPSampler.of(config, [4], range(2)).streams, whole[5:7])
    assert torch.equal(TopPSampler.of(config, [3], range(2, 4)).streams, whole[2:4])
    assert not torch.equal(whole[:5], whole[5:])
    assert len(set(whole.flatten().tolist())) == whole.numel()


def test_greedy_and_forced():
    logits = torch.tensor([[0.0, 2.0, 1.0], [5.0, 0.0, 1.0]])
    rows = torch.tensor([0, 1])
    assert GreedySampler().pick(logits, rows, torch.tensor([3, 3])).tolist() == [1, 0]
    forced = TeacherForcing([(7, 8), (9,), ()], eos_id=1)
    assert [forced.pick(logits, torch.tensor([0, 2]), torch.tensor([step] * 2)).tolist() for step in range(3)] == [
        [7, 1],
        [8, 1],
        [1, 1],
    ]
