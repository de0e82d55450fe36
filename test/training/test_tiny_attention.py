"""A model set up for training against itself as transformers runs it."""

import copy

import numpy as np
import pytest
import torch
from tiny_parts import ARCHES, NAMES, SQUARE, small_arch, small_model, transformers_tokens

from training.tiny.attention import use_for_training
from training.tiny.questions import QuestionMaker


@pytest.mark.parametrize("name", ARCHES)
def test_a_model_set_up_for_training_computes_the_same(name):
    arch = small_arch(name)
    model, processor = small_model(arch)
    fast = copy.deepcopy(model)
    use_for_training(fast)
    for size in (SQUARE, (210, 150)):  # of Qwen2.5-VL's windows, the latter has four sizes
        pictures = np.random.default_rng(0).integers(0, 256, (2, *size[::-1], 3), dtype=np.uint8)
        pixels = torch.from_numpy(pictures)
        tokens = transformers_tokens(model, arch.vision_inputs(pixels))
        torch.testing.assert_close(arch.image_tokens(fast, pixels), tokens, atol=1e-4, rtol=1e-4)

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
