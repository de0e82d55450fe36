"""The CPU's training attention and patch product against what they stand in for."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_parts import ARCHES, NAMES, SQUARE, small_arch, small_model

from training.tiny.arch import image_tokens
from training.tiny.cpu import row_by_row_attention
from training.tiny.guide import use_for_training
from training.tiny.questions import QuestionMaker


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.sampled_from([(2, 1), (4, 2), (3, 3)]), st.integers(1, 9), st.booleans())
def test_attention_equals_the_fused_kernel(batch, heads, length, masked):
    generator = torch.Generator().manual_seed(length)
    q, k, v = (torch.randn(batch, h, length, 8, generator=generator) for h in (heads[0], heads[1], heads[1]))
    mask = torch.ones(length, length, dtype=torch.bool).tril()[None, None] if masked else None
    ours = row_by_row_attention(q, k, v, mask, scaling=0.3)
    theirs = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(ours, theirs.transpose(1, 2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ARCHES)
def test_a_model_set_up_for_training_computes_the_same(name):
    arch = small_arch(name)
    model, processor = small_model(arch)
    fast = copy.deepcopy(model)
    use_for_training(fast)
    pictures = np.random.default_rng(0).integers(0, 256, (2, *SQUARE[::-1], 3), dtype=np.uint8)
    tokens = image_tokens(model, arch.vision_inputs(pictures))
    torch.testing.assert_close(image_tokens(fast, arch.vision_inputs(pictures)), tokens, atol=1e-4, rtol=1e-4)

    maker = QuestionMaker(arch, model, processor, NAMES, SQUARE)
    turns = maker.turns([(), ()], [["cup", "key"], ["key", "teddy bear"]])
    hidden = [
        m.model.language_model(
            inputs_embeds=model.get_input_embeddings()(turns.ids),
            attention_mask=turns.mask,
            position_ids=turns.positions,
            use_cache=False,
        ).last_hidden_state
        for m in (model, fast)
    ]
    torch.testing.assert_close(hidden[1], hidden[0], atol=1e-4, rtol=1e-4)
    assert set(fast.state_dict()) == set(model.state_dict())
