"""A model set up for training against itself as transformers runs it."""

import copy
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_parts import (
    ARCHES,
    CUP,
    KEY_HIGH,
    KEY_LOW,
    NAMES,
    SQUARE,
    small_arch,
    small_model,
    transformers_tokens,
    turns_of,
)

from training.tiny.attention import AttentionSupervision, row_by_row_attention, use_for_training
from training.tiny.mistakes import AnswerBox
from training.tiny.questions import QuestionMaker, boxes_text


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
    turns = turns_of(maker, [(), ()], [["cup", "key"], ["key", "teddy bear"]])
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


@pytest.fixture(scope="module", params=ARCHES)
def parts(request):
    arch = small_arch(request.param)
    model, processor = small_model(arch)
    use_for_training(model)
    turns = turns_of(
        QuestionMaker(arch, model, processor, NAMES, SQUARE),
        [[KEY_LOW, KEY_HIGH, CUP], [CUP]],
        [["key", "cup"], ["cup", "teddy bear"]],
    )
    return model, processor, turns


def test_every_box_begins_with_a_look_at_its_own_object(parts):
    _, processor, turns = parts
    looks = [
        (processor.tokenizer.decode([int(turns.ids[b, t + 1])]), k - turns.image[0])
        for k, (b, t) in zip(turns.keys.tolist(), turns.emits.tolist(), strict=True)
        if b == 0
    ]
    # tokens of 30 pixels, four a row: the upper key, the lower key, the cup; opened, then its first digit
    assert [column for _, column in looks] == [2, 2, 12, 12, 5, 5]
    assert [text.isdigit() for text, _ in looks] == [False, True] * 3


@pytest.mark.parametrize("name", ARCHES)
def test_with_all_coordinates_the_first_digit_of_each_looks_at_the_object(name):
    arch = small_arch(name)
    model, processor = small_model(arch)
    maker = QuestionMaker(arch, model, processor, NAMES, SQUARE)
    wrong = AnswerBox(CUP.box), AnswerBox(KEY_LOW.box, supervised=False)
    turns = maker.turns([["key", "teddy bear"]], [[wrong, ()]], all_coordinates=True)
    texts = [processor.tokenizer.decode([int(turns.ids[b, t + 1])]) for b, t in turns.emits.tolist()]
    assert [k - turns.image[0] for k in turns.keys.tolist()[:5]] == [5] * 5 and turns.keys.tolist()[5:] == [0]
    numbers = json.loads(boxes_text("key", [CUP.box], SQUARE, arch.frame(*SQUARE)))[0]["bbox_2d"]
    assert texts[1:5] == [str(n)[0] for n in numbers]


def test_an_answer_without_a_box_looks_away_from_the_picture(parts):
    _, processor, turns = parts
    (text,) = [
        processor.tokenizer.decode([int(turns.ids[b, t + 1])])
        for k, (b, t) in zip(turns.keys.tolist(), turns.emits.tolist(), strict=True)
        if k == 0
    ]
    assert text == "[]"


def test_the_loss_is_what_attention_misses(parts):
    model, _, turns = parts
    embedded = model.get_input_embeddings()(turns.ids)

    def missed(keys):
        guide = AttentionSupervision(1, turns.emits, keys)
        model.model.language_model(
            inputs_embeds=embedded,
            attention_mask=turns.mask,
            position_ids=turns.positions,
            use_cache=False,
            guide=guide,
        )
        return guide.loss()

    loss = missed(turns.keys)
    assert 1 < loss.item() < 10  # near the logarithm of the number of visible columns in a model that knows nothing
    later = turns.emits[:, 1] + 1  # a column that the row must not see
    assert missed(later).item() == pytest.approx(-torch.log(torch.tensor(1e-6)).item(), rel=1e-3)
    loss.backward()
    layers = model.model.language_model.layers
    assert layers[1].self_attn.q_proj.weight.grad.abs().max() > 0 and layers[2].self_attn.q_proj.weight.grad is None


@settings(max_examples=25)
@given(st.integers(1, 3), st.sampled_from([(2, 1), (4, 2), (3, 3)]), st.integers(1, 9), st.booleans())
def test_attention_equals_the_fused_kernel(batch, heads, length, masked):
    generator = torch.Generator().manual_seed(length)
    q, k, v = (torch.randn(batch, h, length, 8, generator=generator) for h in (heads[0], heads[1], heads[1]))
    mask = torch.ones(length, length, dtype=torch.bool).tril()[None, None] if masked else None
    ours = row_by_row_attention(q, k, v, mask, scaling=0.3)
    theirs = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(ours, theirs.transpose(1, 2), atol=1e-5, rtol=1e-5)
