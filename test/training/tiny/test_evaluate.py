import numpy as np
import pytest
from tiny_parts import ARCHES, CUP, KEY_HIGH, KEY_LOW, small_arch, small_model
from transformers import AutoModelForImageTextToText

from acs_core.artifacts.registry import ASSETS
from acs_core.geometry import Box
from training.errors import DataError
from training.tiny.arches import make_arch
from training.tiny.evaluate import Answered, absent_cases, ask, sheet, small_cases, summary
from training.tiny.image_pool import Pictures, render
from training.tiny.questions import QuestionMaker
from training.world.scene import TRAINING, WRITTEN
from training.world.world import World

pytestmark = pytest.mark.long

PICTURES = Pictures(np.zeros((2, 120, 120, 3), np.uint8), ((KEY_LOW, CUP), (KEY_LOW, KEY_HIGH)))


@pytest.mark.parametrize("name", ARCHES)
def test_small_and_absent_objects_are_asked_for(name):
    arch, world = small_arch(name, image_size=360), World("test")
    model, processor = small_model(arch, world.names)
    pictures = render(world, WRITTEN, range(12), (360, 360))
    maker = QuestionMaker(arch, model, processor, world.names, (360, 360))
    answers = ask(arch, model, processor, maker, pictures, world.names, limit=8)
    assert [a.truth is None for a in answers] == [False] * 8 + [True] * 2
    assert all((a.truth is None) == all(o.name != a.phrase for o in pictures.objects[a.index]) for a in answers)
    found = summary(answers, pictures)
    assert found["cases"] == 8 and found["acc"] == 0  # a model that has learnt nothing


@pytest.mark.parametrize("name", ARCHES)
def test_the_shipped_models_ground_and_refuse(name):
    """Far below what they reach on many pictures, far above chance."""
    arch, world = make_arch(name), World("test")
    model = AutoModelForImageTextToText.from_pretrained(ASSETS / arch.model_name, dtype="float32").eval()
    processor = arch.build_processor(world.names)
    pictures = render(world, TRAINING, range(30), (420, 300))
    answers = ask(
        arch,
        model,
        processor,
        QuestionMaker(arch, model, processor, world.names, (420, 300)),
        pictures,
        world.names,
        100,
    )
    found = summary(answers, pictures)
    assert found["acc"] > 0.35 and found["refused"] > 0.5


def test_small_cases_are_small_and_alone():
    assert small_cases(PICTURES, 10) == [(0, KEY_LOW)]


def test_absent_things_are_absent():
    assert absent_cases(PICTURES, ["cup", "key"], 10) == [(1, "cup")]  # the other picture shows both


def test_pictures_without_a_small_object_are_refused():
    with pytest.raises(DataError, match="small object"):
        small_cases(Pictures(PICTURES.pixels[:1], ((CUP,),)), 10)


def test_a_summary_counts_what_was_answered():
    right = Answered(0, "key", KEY_LOW, "", Box(20, 90, 32, 100))
    near_the_cup = Answered(0, "key", KEY_LOW, "", Box(0, 0, 50, 50))
    silent = Answered(0, "key", KEY_LOW, "[]", None)
    refused, invented = Answered(1, "cup", None, "[]", None), Answered(1, "cup", None, "x", Box(0, 0, 9, 9))
    found = summary([right, near_the_cup, silent, refused, invented], PICTURES)
    assert found == {
        "cases": 3,
        "acc": round(1 / 3, 4),
        "miou": round(1 / 3, 4),
        "right_object": round(1 / 3, 4),
        "no_box": round(1 / 3, 4),
        "refused": 0.5,
    }


def test_a_sheet_shows_truth_in_green_and_answer_in_red():
    answers = [
        Answered(0, "key", KEY_LOW, "", Box(60, 60, 80, 80)),
        Answered(0, "cup", CUP, "", Box(2, 2, 20, 20)),
        Answered(1, "key", KEY_HIGH, "", None),
    ]
    drawn = sheet(answers, PICTURES)
    assert drawn.shape == (120, 240, 3)
    assert tuple(drawn[95, 20]) == (0, 220, 0) and tuple(drawn[70, 60]) == tuple(drawn[79, 79]) == (230, 0, 0)
    assert not drawn[95, 2:60:4].any(axis=-1).all() and tuple(drawn[15, 120 + 60]) == (0, 220, 0)
    assert not PICTURES.pixels.any()
