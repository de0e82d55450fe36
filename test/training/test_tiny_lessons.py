import pytest
import torch
from tiny_parts import ARCHES, small_arch

from training.scene import TRAINING
from training.tiny.data import render
from training.tiny.dense import dense_targets
from training.tiny.lessons import Lessons
from training.world import World

SIZE = (120, 120)


@pytest.fixture(scope="module", params=ARCHES)
def lessons(request):
    return Lessons(small_arch(request.param), World("train").names, "cpu", seed=0)


@pytest.fixture(scope="module")
def pictures():
    return render(World("train"), TRAINING, range(4), SIZE, (2, 4))


@pytest.fixture(scope="module")
def pixels(pictures):
    return torch.from_numpy(pictures.pixels)


@pytest.fixture(scope="module")
def targets(lessons, pictures):
    return dense_targets(pictures.objects, lessons.names, lessons.arch, SIZE)


def test_the_vision_half_can_learn_a_few_pictures(lessons, pixels, targets):
    optimiser = torch.optim.Adam(lessons.parameters(), lr=3e-3)
    history = []
    for _ in range(25):
        loss, parts = lessons.vision_loss(pixels, targets, SIZE)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(loss.item())
    assert history[-1] < 0.8 * history[0]
    assert {"class", "box", "digits", "place"} <= set(parts)


def test_answers_are_taught_with_the_teacher_where_it_reads_what_is_trained(lessons, pictures, pixels, targets):
    tokens = lessons.tokens(pixels).detach()
    phrases = [[objects[0].name] for objects in pictures.objects]
    turns = lessons.maker(SIZE).turns(pictures.objects, phrases)
    loss, parts = lessons.answer_loss(tokens, turns, targets, dense_weight=0.3)
    assert ("class" in parts) == (lessons.arch.teacher_layers > 0)
    again = lessons.answer_loss(tokens.requires_grad_(), turns, targets, dense_weight=0.3)[1]
    assert "class" in again and again["language"].item() == pytest.approx(parts["language"].item(), abs=1e-3)
    dense = parts.get("class", 0) and _teachers(parts)
    assert loss.item() == pytest.approx(float(parts["language"] + 0.3 * dense), rel=1e-3)
    assert "class" not in lessons.answer_loss(tokens, turns, targets)[1]


def test_the_guide_is_weighed_in(lessons, pictures, pixels, targets):
    tokens = lessons.tokens(pixels).detach()
    turns = lessons.maker(SIZE).turns(pictures.objects, [[objects[0].name] for objects in pictures.objects])
    plain = lessons.answer_loss(tokens, turns, targets)[0].item()
    guided, parts = lessons.answer_loss(tokens, turns, targets, guide_weight=0.5)
    assert parts["guide"] > 1 and guided.item() == pytest.approx(plain + 0.5 * parts["guide"].item(), rel=1e-3)


def _teachers(parts):
    return parts["class"] + 2 * parts["box"] + 0.5 * parts["digits"] + 0.2 * parts["place"]
