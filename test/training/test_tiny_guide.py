import pytest
import torch
from tiny_parts import ARCHES, CUP, KEY_HIGH, KEY_LOW, NAMES, SQUARE, small_arch, small_model

from training.tiny.attention import use_for_training
from training.tiny.guide import Guide
from training.tiny.questions import QuestionMaker


@pytest.fixture(scope="module", params=ARCHES)
def parts(request):
    arch = small_arch(request.param)
    model, processor = small_model(arch)
    use_for_training(model)
    turns = QuestionMaker(arch, model, processor, NAMES, SQUARE).turns(
        [[KEY_LOW, KEY_HIGH, CUP], [CUP]], [["key", "cup"], ["cup", "teddy bear"]]
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
        guide = Guide(1, turns.emits, keys)
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
