from dataclasses import replace

import pytest
import torch
from tiny_parts import ARCHES, small_arch, turns_of

from training.tiny.dense_head import dense_targets
from training.tiny.image_pool import render
from training.tiny.losses import TinyLosses
from training.tiny.questions import IGNORED
from training.world.scene import TRAINING
from training.world.world import World

SIZE = (120, 120)


@pytest.fixture(scope="module", params=ARCHES)
def losses(request):
    return TinyLosses(small_arch(request.param), World("train").names, "cpu", seed=0)


@pytest.fixture(scope="module")
def pictures():
    return render(World("train"), TRAINING, range(4), SIZE, (2, 4))


@pytest.fixture(scope="module")
def pixels(pictures):
    return torch.from_numpy(pictures.pixels)


@pytest.fixture(scope="module")
def targets(losses, pictures):
    return dense_targets(pictures.objects, losses.names, losses.arch, SIZE)


def test_the_vision_half_can_learn_a_few_pictures(losses, pixels, targets):
    optimiser = torch.optim.Adam(losses.parameters(), lr=3e-3)
    history = []
    for _ in range(25):
        loss, parts = losses.vision_loss(pixels, targets, SIZE)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(loss.item())
    assert history[-1] < 0.8 * history[0]
    assert {"class", "box", "digits", "place"} <= set(parts)


def test_answers_are_taught_with_the_teacher_where_it_reads_what_is_trained(losses, pictures, pixels, targets):
    tokens = losses.tokens(pixels).detach()
    phrases = [[objects[0].name] for objects in pictures.objects]
    turns = turns_of(losses.maker(SIZE), pictures.objects, phrases)
    loss, parts = losses.answer_loss(tokens, turns, targets, dense_weight=0.3)
    assert ("class" in parts) == (losses.arch.teacher_layers > 0)
    again = losses.answer_loss(tokens.requires_grad_(), turns, targets, dense_weight=0.3)[1]
    assert "class" in again and again["language"].item() == pytest.approx(parts["language"].item(), abs=1e-3)
    dense = parts.get("class", 0) and _teachers(parts)
    assert loss.item() == pytest.approx(float(parts["language"] + 0.3 * dense), rel=1e-3)
    assert "class" not in losses.answer_loss(tokens, turns, targets)[1]


def test_the_guide_is_weighed_in(losses, pictures, pixels, targets):
    tokens = losses.tokens(pixels).detach()
    turns = turns_of(losses.maker(SIZE), pictures.objects, [[objects[0].name] for objects in pictures.objects])
    plain = losses.answer_loss(tokens, turns, targets)[0].item()
    guided, parts = losses.answer_loss(tokens, turns, targets, guide_weight=0.5)
    assert parts["guide"] > 1 and guided.item() == pytest.approx(plain + 0.5 * parts["guide"].item(), rel=1e-3)


def test_the_logits_of_later_coordinates_are_divided_by_their_temperature(losses, pictures, pixels, targets):
    tokens = losses.tokens(pixels).detach()
    turns = turns_of(losses.maker(SIZE), pictures.objects, [[objects[0].name] for objects in pictures.objects])

    def loss(turns, temperature):
        return losses.answer_loss(tokens, turns, targets, coordinate_temperature=temperature)[0].item()

    none, answered = torch.zeros_like(turns.later), turns.labels != IGNORED
    assert loss(replace(turns, later=none), 2.0) == loss(turns, 1.0) != loss(turns, 2.0)
    # With an infinite temperature every token is as likely as any other.
    even = torch.log(torch.tensor(float(losses.model.config.get_text_config().vocab_size))).item()
    assert loss(replace(turns, later=answered), 1e9) == pytest.approx(even, rel=1e-3)


def _teachers(parts):
    return parts["class"] + 2 * parts["box"] + 0.5 * parts["digits"] + 0.2 * parts["place"]
