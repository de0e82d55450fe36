"""Reading the prompt once changes nothing about what is drawn."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import GenerationConfig
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from acs_core.attention import AttentionNeeds, capture
from acs_core.errors import Cancelled
from acs_core.geometry import Box
from acs_core.reading import read, side_by_side
from acs_core.sampling import answer_each, draw_more, greedy, sample
from acs_core.types import Candidate, SamplingConfig


@pytest.fixture(scope="module")
def prompt(lvlm, picture):
    return lvlm.prepare(picture, "key")


def stock(lvlm, picture, **settings):
    """Response ids of transformers' own generate, with the model's own position ids, up to the end token."""
    prompt = lvlm.prepare(picture, "key")
    inputs = {"input_ids": prompt.input_ids, "attention_mask": torch.ones_like(prompt.input_ids), **prompt.vision}
    if lvlm.family == "qwen2_5_vl":
        inputs["mm_token_type_ids"] = (prompt.input_ids == lvlm.hf_model.config.image_token_id).int()
    config = GenerationConfig(eos_token_id=list(lvlm.eos_ids), pad_token_id=lvlm.pad_id, **settings)
    with torch.no_grad():
        rows = lvlm.hf_model.generate(**inputs, generation_config=config)[:, prompt.length :].tolist()
    eos = lvlm.eos_ids[0]
    return [tuple(row[: row.index(eos)] if eos in row else row) for row in rows]


def test_greedy_equals_stock_generate(lvlm, prompt, picture):
    ours = greedy(lvlm, prompt, max_new_tokens=24)
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
    ours = sample(lvlm, prompt, config)
    assert len(ours.response_ids) == n
    for row in {0, n // 2, n - 1}:
        assert ours.response_ids[row] == replayed(lvlm, prompt, config, row)


def test_a_response_does_not_depend_on_how_many_are_drawn(lvlm, prompt):
    config = SamplingConfig(num_samples=9, temperature=1.2, max_new_tokens=14, seed=3)
    nine = sample(lvlm, prompt, config)
    assert sample(lvlm, prompt, replace(config, num_samples=4)).response_ids == nine.response_ids[:4]
    reading = read(lvlm, [prompt])
    (first,) = draw_more(lvlm, reading, config, [3], range(2))
    (rest,) = draw_more(lvlm, reading, config, [3], range(2, 9))
    joined = first.extended(rest)
    assert (joined.response_ids, joined.finished, joined.seed) == (nine.response_ids, nine.finished, 3)
    assert joined.num_samples == 9


def test_phrases_about_one_picture_are_answered_as_if_alone(lvlm, picture):
    phrases = ["key", "dog", "a very small dog behind the key"]
    config = SamplingConfig(num_samples=5, temperature=1.2, max_new_tokens=14)
    together = draw_more(lvlm, read(lvlm, lvlm.prepare_many(picture, phrases)), config, [1, 2, 3], range(5))
    for seed, phrase, ours in zip((1, 2, 3), phrases, together, strict=True):
        alone = sample(lvlm, lvlm.prepare(picture, phrase), replace(config, seed=seed))
        assert (ours.response_ids, ours.finished, ours.seed) == (alone.response_ids, alone.finished, seed)


@pytest.mark.parametrize("drawn", [True, False], ids=["samples", "greedy"])
def test_questions_about_different_pictures_are_answered_as_if_alone(lvlm, picture, drawn):
    pictures, phrases = [picture, np.flip(picture, 0).copy(), picture[:, :90].copy()], ["key", "dog", "a small key"]
    prompts = [lvlm.prepare(image, phrase) for image, phrase in zip(pictures, phrases, strict=True)]
    config = SamplingConfig(num_samples=4, temperature=1.2, max_new_tokens=14) if drawn else None
    together = answer_each(
        lvlm, [read(lvlm, [prompt]) for prompt in prompts], config, [5, 6, 7], 14, token_entropy=True
    )
    for seed, image, phrase, ours in zip((5, 6, 7), pictures, phrases, together, strict=True):
        prompt = lvlm.prepare(image, phrase)
        own = replace(config, seed=seed) if config else None
        alone = sample(lvlm, prompt, own, token_entropy=True) if own else greedy(lvlm, prompt, 14, token_entropy=True)
        assert (ours.response_ids, ours.finished, ours.seed) == (alone.response_ids, alone.finished, alone.seed)
        for a, b in zip(ours.token_entropy, alone.token_entropy, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)
        candidates = [Candidate(Box(0, 0, 1, 1), "", r, 0, (0, 1, 2, 3)) for r in range(ours.num_samples)]
        needs = AttentionNeeds(maps=True, all_entropies=True)
        mine, theirs = (
            capture(lvlm, p, s, candidates, needs) for p, s in ((ours.reading.prompts[0], ours), (prompt, alone))
        )
        np.testing.assert_allclose(mine.maps, theirs.maps, atol=1e-5)
        np.testing.assert_allclose(mine.entropy, theirs.entropy, atol=1e-4)


def test_only_readings_of_one_prompt_stand_side_by_side(lvlm, picture):
    two = read(lvlm, lvlm.prepare_many(picture, ["key", "dog"]))
    for readings in ([], [two]):
        with pytest.raises(ValueError, match="one prompt each"):
            side_by_side(readings)


def test_cut_responses_stay_as_they_are(lvlm, prompt):
    config = SamplingConfig(num_samples=3, max_new_tokens=14, temperature=1.2, seed=8)
    whole = sample(lvlm, prompt, config)
    asked = []
    (cut,) = draw_more(
        lvlm, read(lvlm, [prompt]), config, [8], range(3), cut_when=lambda: asked.append(1) or len(asked) > 5
    )
    assert cut.response_ids == tuple(ids[:5] for ids in whole.response_ids)
    short = [done and len(ids) < 5 for ids, done in zip(whole.response_ids, whole.finished, strict=True)]
    assert list(cut.finished) == short


def test_seed_repeats_and_matters(lvlm, prompt):
    def draw(seed):
        config = SamplingConfig(num_samples=4, max_new_tokens=8, temperature=1.0, seed=seed)
        return sample(lvlm, prompt, config)

    assert draw(3).response_ids == draw(3).response_ids
    assert draw(3).response_ids != draw(4).response_ids
    fresh = draw(None)
    assert draw(fresh.seed).response_ids == fresh.response_ids
    assert fresh.seed != draw(None).seed


def test_random_state_of_the_caller_is_untouched(lvlm, prompt):
    states = lambda: (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist())  # noqa: E731
    before = states()
    sample(lvlm, prompt, SamplingConfig(num_samples=2, max_new_tokens=4))
    with pytest.raises(Cancelled):
        sample(lvlm, prompt, SamplingConfig(num_samples=2, max_new_tokens=4), should_stop=lambda: True)
    assert states() == before


def test_prompts_do_not_influence_each_other(lvlm, prompt):
    """The model keeps rope offsets of an earlier prompt; ours must not read them."""
    alone = greedy(lvlm, prompt, max_new_tokens=12).response_ids
    greedy(lvlm, lvlm.prepare(np.zeros((60, 400, 3), np.uint8), "small red dog"), max_new_tokens=3)
    assert greedy(lvlm, prompt, max_new_tokens=12).response_ids == alone


def test_stopping(lvlm, prompt):
    asked = []

    def after_three():
        asked.append(1)
        return len(asked) > 3

    with pytest.raises(Cancelled, match="while the model was answering"):
        sample(lvlm, prompt, SamplingConfig(num_samples=2, max_new_tokens=50), should_stop=after_three)
    assert len(asked) == 4
    with pytest.raises(Cancelled, match="before the model read"):
        greedy(lvlm, prompt, should_stop=lambda: True)


def test_forced_responses_of_different_length(lvlm, prompt):
    rows = [(70, 71, 72, 73), (), (80,)]
    out = sample(lvlm, prompt, SamplingConfig(num_samples=3, max_new_tokens=2), forced=rows)
    assert out.response_ids == tuple(rows)
    assert out.finished == (True, True, True)
    with pytest.raises(ValueError, match="2 rows for 3 samples"):
        sample(lvlm, prompt, SamplingConfig(num_samples=3), forced=rows[:2])


def test_responses_are_cut_at_max_new_tokens(lvlm, prompt):
    out = sample(lvlm, prompt, SamplingConfig(num_samples=3, max_new_tokens=5, seed=0))
    for ids, finished in zip(out.response_ids, out.finished, strict=True):
        assert len(ids) < 5 if finished else len(ids) == 5
        assert not set(ids) & set(lvlm.eos_ids)


def test_vocabulary_entropy(lvlm, prompt):
    config = SamplingConfig(num_samples=3, max_new_tokens=6, temperature=0.3, top_k=5, seed=2)
    out = sample(lvlm, prompt, config, token_entropy=True)
    assert out.response_ids == sample(lvlm, prompt, config).response_ids
    assert sample(lvlm, prompt, config).token_entropy is None
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
    assert [len(e) for e in out.token_entropy] == [len(r) for r in out.response_ids]
