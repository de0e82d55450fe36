"""Reading the prompt once changes nothing about what is drawn."""

import random

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from acs_core.errors import Cancelled
from acs_core.sampling import greedy, sample
from acs_core.types import SamplingConfig


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
    assert (ours.num_samples, ours.sequences.shape[0], ours.seed) == (1, 1, 0)


@pytest.mark.parametrize("n", [1, 3, 16])
def test_sampling_equals_stock_generate(lvlm, prompt, picture, n):
    config = SamplingConfig(num_samples=n, temperature=0.7, top_p=0.9, top_k=40, max_new_tokens=12, seed=5)
    ours = sample(lvlm, prompt, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        theirs = stock(
            lvlm,
            picture,
            do_sample=True,
            temperature=0.7,
            top_p=0.9,
            top_k=40,
            max_new_tokens=12,
            num_return_sequences=n,
        )
    assert list(ours.response_ids) == theirs


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
    assert out.sequences.shape == (3, prompt.length + 5)
    assert out.cache.get_seq_length() == prompt.length + 4
    assert out.sequences[1, prompt.length :].tolist() == [lvlm.eos_ids[0]] + [lvlm.pad_id] * 4
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
    ids = out.sequences[:1]
    steps = ids.shape[1] - prompt.length
    text = torch.arange(prompt.next_position, prompt.next_position + steps).expand(
        *prompt.position_ids.shape[:-1], steps
    )
    with torch.no_grad():
        positions = torch.cat([prompt.position_ids, text], dim=-1)
        logits = lvlm.hf_model(input_ids=ids, position_ids=positions, **prompt.vision).logits[0, prompt.length - 1 : -1]
    expected = torch.distributions.Categorical(logits=logits).entropy()[: len(out.response_ids[0])]
    assert out.token_entropy[0] == pytest.approx(expected.tolist(), abs=1e-4)
    assert [len(e) for e in out.token_entropy] == [len(r) for r in out.response_ids]
