import json

import numpy as np
import pytest
import torch

from acs_core.geometry import Box
from training.sprites import load_sprites
from training.tiny.data import IGNORED, QuestionMaker, answer_text, normalised, render_pictures
from training.tiny.model import TinyConfig, build_processor
from training.world import SceneObject, WorldConfig

NAMES = ["cup", "key"]
KEY_LOW, KEY_HIGH, CUP = (
    SceneObject("key", Box(20, 180, 30, 190), 50),
    SceneObject("key", Box(100, 10, 112, 20), 60),
    SceneObject("cup", Box(0, 0, 112, 112), 9000),
)


@pytest.fixture(scope="module")
def processor():
    return build_processor(TinyConfig(), NAMES)


@pytest.fixture(scope="module")
def questions(processor):
    return QuestionMaker(processor, NAMES, 224)


@pytest.mark.parametrize(
    ("name", "objects", "boxes"),
    [
        ("key", [KEY_LOW, KEY_HIGH, CUP], [[446, 45, 500, 89], [89, 804, 134, 848]]),
        ("cup", [KEY_LOW, CUP], [[0, 0, 500, 500]]),
        ("cup", [KEY_LOW], []),
    ],
)
def test_answers_are_json_from_top_to_bottom_in_thousandths(name, objects, boxes):
    answer = json.loads(answer_text(name, objects, 224))
    assert [a["bbox_2d"] for a in answer] == boxes and all(a["label"] == name for a in answer)


def test_pictures_are_drawn_once_and_kept(tmp_path):
    sprites, config = load_sprites(), WorldConfig()
    drawn = render_pictures(tmp_path, 3, 5, sprites, config)
    kept = render_pictures(tmp_path, 3, 5, (), config)  # no sprites: it can only read
    assert (drawn.pixels == kept.pixels).all() and drawn.objects == kept.objects


def test_pixels_are_what_the_processor_makes(processor):
    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    made = processor.image_processor(images=[image], crop_to_patches=True, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(normalised(image[None]), made)


def test_a_question_sees_its_picture_and_itself_alone(questions):
    turns = questions.turns([[KEY_LOW, CUP]], [["key", "cup"]])
    start = len(questions.prefix)
    length = (turns.ids.shape[1] - start) // 2
    mask = turns.mask[0, 0]
    second = start + length
    assert mask[second, :start].all() and not mask[second, start:second].any() and mask[second, second]
    assert not mask[second, second + 1 :].any()
    assert turns.positions[0, second] == turns.positions[0, start] == start


def test_only_answers_are_learnt(questions, processor):
    turns = questions.turns([[KEY_LOW]], [["key"]])
    learnt = turns.labels[0][turns.labels[0] != IGNORED]
    assert processor.tokenizer.decode(learnt) == answer_text("key", [KEY_LOW], 224) + "<|im_end|>"
    assert (turns.ids[0][turns.labels[0] != IGNORED] == learnt).all()


def test_phrases_are_mostly_of_what_is_there(questions):
    rng = np.random.default_rng(0)
    picked = [questions.pick(rng, [KEY_LOW], 4, absent_share=0.1) for _ in range(300)]
    absent = sum("cup" in p for p in picked) / len(picked)
    assert 0.3 < absent < 0.5 and all(len(p) == 4 for p in picked)
