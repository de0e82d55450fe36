"""Tokens are drawn as transformers' own cuts would, from numbers that belong to the response alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from acs_core.drawing import Forced, Greedy, RandomDraw, kept_tokens
from acs_core.types import SamplingConfig

VOCABULARY = 50


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
    draw = RandomDraw.of(config, [5], range(1))
    tokens = torch.cat([draw.pick(logits, torch.tensor([0]), step) for step in range(4000)])
    shares = torch.bincount(tokens, minlength=VOCABULARY) / 4000
    assert (shares - stock_probabilities(logits, config)[0]).abs().max() < 0.03


@pytest.mark.parametrize("number", [0.0, 0.5, 1.0 - 2**-24])
def test_a_token_without_probability_is_never_drawn(number):
    config = SamplingConfig(temperature=1.0, top_p=0.7, top_k=0)
    logits = torch.tensor([[2.0, 1.0, 0.0, -torch.inf, -torch.inf]])
    draw = RandomDraw(config, torch.full((1, 1), number))
    assert draw.pick(logits, torch.tensor([0]), 0).item() in (0, 1)


def test_logits_that_are_no_numbers_do_not_break_the_draw():
    draw = RandomDraw.of(SamplingConfig(max_new_tokens=2), [0], range(1))
    token = draw.pick(torch.full((1, VOCABULARY), torch.nan), torch.tensor([0]), 0)
    assert 0 <= token.item() < VOCABULARY


def test_streams_belong_to_seed_and_response():
    config = SamplingConfig(max_new_tokens=6)
    whole = RandomDraw.of(config, [3, 4], range(5)).streams  # (10, 6)
    assert torch.equal(RandomDraw.of(config, [4], range(2)).streams, whole[5:7])
    assert torch.equal(RandomDraw.of(config, [3], range(2, 4)).streams, whole[2:4])
    assert not torch.equal(whole[:5], whole[5:])
    assert len(set(whole.flatten().tolist())) == whole.numel()


def test_greedy_and_forced():
    logits = torch.tensor([[0.0, 2.0, 1.0], [5.0, 0.0, 1.0]])
    rows = torch.tensor([0, 1])
    assert Greedy().pick(logits, rows, 3).tolist() == [1, 0]
    forced = Forced([(7, 8), (9,), ()], eos_id=1)
    assert [forced.pick(logits, torch.tensor([0, 2]), step).tolist() for step in range(3)] == [[7, 1], [8, 1], [1, 1]]
