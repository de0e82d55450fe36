"""Attention and token entropies on their way through a Grounder: what was captured is what the qualities come from."""

import numpy as np
import pytest
from grounder_parts import ANSWERS, IMAGE

from acs_core.attention import AttentionNeeds, capture
from acs_core.generation.sample import sample_responses
from acs_core.types import SamplingConfig


def forced_answers(lvlm, prompt):
    """Samples that say ANSWERS."""
    ids = [lvlm.tokenizer(text, add_special_tokens=False)["input_ids"] for text in ANSWERS]
    return sample_responses(lvlm, prompt, SamplingConfig(num_samples=len(ids)), forced=ids)


def test_quality_follows_the_captured_entropies(grounders, answers):
    answers(*ANSWERS)
    grounder = grounders()
    result = grounder.ground(IMAGE, "key", sampling=SamplingConfig(seed=1), whole_responses=True)
    prompt = grounder.lvlm.prepare(IMAGE, "key")
    samples = forced_answers(grounder.lvlm, prompt)
    entropy = capture(grounder.lvlm, prompt, samples, result.candidates, AttentionNeeds(all_entropies=True)).entropy
    means = np.array([[(e[c, 1, c] + e[c, 2, 0]) / 2 for c in range(4)] for e in entropy])
    gap = means[:, None] - means[None]  # (C, C, 4)
    below, level = (gap > 1e-5).sum(axis=(1, 2)), (abs(gap) <= 1e-5).sum(axis=(1, 2)) - 4
    # The first three answers begin alike, so they look alike at their first x1: a tie in the rank of x1.
    assert level.tolist() == [2, 2, 2, 0]
    assert [c.quality for c in result.candidates] == pytest.approx((1 - (below + level / 2) / 12).tolist())


def test_the_attention_of_the_winner_is_that_of_the_heads_that_were_read(grounders, answers):
    answers(*ANSWERS)
    grounder, options = grounders(), {"sampling": SamplingConfig(seed=1)}
    result = grounder.ground(IMAGE, "key", with_attention=True, **options)
    winner = result.candidates[result.detections[0].candidate]
    prompt = grounder.lvlm.prepare(IMAGE, "key")
    samples = forced_answers(grounder.lvlm, prompt)
    maps = capture(grounder.lvlm, prompt, samples, [winner], AttentionNeeds(maps=True)).maps[0]
    expected = sum(maps[c, 1, c] + maps[c, 2, 0] for c in range(4)) / 8
    np.testing.assert_allclose(result.attention, expected, rtol=1e-4)
    assert result.attention.shape == prompt.grid
    assert grounder.ground(IMAGE, "key", **options).attention is None


def test_there_is_attention_of_the_best_that_was_refused_and_none_without_a_box(grounders, answers):
    answers(*ANSWERS)
    refused = grounders("acs-learned").ground(IMAGE, "key", min_score=1.0, with_attention=True)
    assert not refused.detections and refused.attention is not None and (refused.attention > 0).any()
    answers("banana")
    assert grounders().ground(IMAGE, "key", with_attention=True).attention is None


def test_token_entropies_reach_the_selector(grounders, answers):
    answers(*ANSWERS)
    grounder = grounders("token-entropy")
    result = grounder.ground(IMAGE, "key")
    forced = [grounder.lvlm.tokenizer(text, add_special_tokens=False)["input_ids"] for text in ANSWERS]
    samples = sample_responses(
        grounder.lvlm,
        grounder.lvlm.prepare(IMAGE, "key"),
        SamplingConfig(num_samples=4),
        forced=forced,
        token_statistics=True,
    )
    sums = [sum(samples.token_entropy[c.response][t] for t in c.coordinate_tokens) for c in result.candidates]
    assert [c.quality for c in result.candidates] == pytest.approx([1 / (1 + h) for h in sums], abs=1e-3)
