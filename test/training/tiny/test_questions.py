import json

import numpy as np
import pytest
import torch
from tiny_parts import CUP, KEY_HIGH, KEY_LOW, NAMES, SQUARE, small_arch, small_model, turns_of

from acs_core.geometry import Box
from training.tiny.questions import IGNORED, MOST_BOXES, QuestionMaker, boxes_text, in_reading_order
from training.world.scene import SceneObject


def answer_text(name, objects, size, frame):
    """The answer about an image of ``size`` that holds ``objects``, in the model's ``frame``."""
    return boxes_text(name, [o.box for o in in_reading_order(name, objects)], size, frame)


RED, BLUE = (SceneObject("cup", box, 90, colour) for box, colour in ((Box(60, 60, 70, 70), "red"), (CUP.box, "blue")))


@pytest.fixture(scope="module", params=["internvl", "qwen2_5_vl"])
def parts(request):
    arch = small_arch(request.param)
    model, processor = small_model(arch)
    return arch, processor, QuestionMaker(arch, model, processor, NAMES, SQUARE)


@pytest.mark.parametrize(
    ("name", "objects", "frame", "boxes"),
    [
        ("key", [KEY_LOW, KEY_HIGH, CUP], (1000, 1000), [[500, 83, 600, 167], [167, 750, 267, 833]]),
        ("key", [KEY_LOW, KEY_HIGH, CUP], SQUARE, [[60, 10, 72, 20], [20, 90, 32, 100]]),
        ("cup", [KEY_LOW, CUP], (1000, 1000), [[0, 0, 500, 500]]),
        ("cup", [KEY_LOW], SQUARE, []),
    ],
)
def test_answers_are_json_from_top_to_bottom_in_the_models_frame(name, objects, frame, boxes):
    answer = json.loads(answer_text(name, objects, SQUARE, frame))
    assert [a["bbox_2d"] for a in answer] == boxes and all(a["label"] == name for a in answer)


def test_a_question_sees_its_picture_and_itself_alone(parts):
    maker = parts[2]
    turns = turns_of(maker, [[KEY_LOW, CUP]], [["key", "cup"]])
    start = len(maker.prefix.ids)
    mask, second = turns.mask[0, 0], turns_of(maker, [[KEY_LOW, CUP]], [["key"]]).ids.shape[1]
    assert turns.ids[0, second : second + 3].tolist() == maker.question("cup")[:3]
    assert mask[second, :start].all() and not mask[second, start:second].any() and mask[second, second]
    assert not mask[second, second + 1 :].any()
    assert torch.equal(turns.positions[..., 0, second], turns.positions[..., 0, start])
    assert int(turns.positions[..., 0, start].max()) == int(maker.prefix.positions.max()) + 1


def test_padding_is_seen_by_nobody_and_not_learnt(parts):
    maker = parts[2]
    turns = turns_of(maker, [[KEY_LOW, KEY_HIGH], [CUP]], [["key"], ["teddy bear"]])
    used = len(maker.prefix.ids) + len(maker.question("teddy bear")) + 2  # "[]" and the end token
    assert turns.ids.shape[1] > used
    assert not turns.mask[1, 0, :used, used:].any() and (turns.labels[1, used:] == IGNORED).all()


def test_only_answers_are_learnt(parts):
    arch, processor, maker = parts
    turns = turns_of(maker, [[KEY_LOW]], [["key"]])
    learnt = turns.labels[0][turns.labels[0] != IGNORED]
    wanted = answer_text("key", [KEY_LOW], SQUARE, arch.frame(*SQUARE)) + "<|im_end|>"
    assert processor.tokenizer.decode(learnt) == wanted
    assert (turns.ids[0][turns.labels[0] != IGNORED] == learnt).all()


def test_the_later_coordinates_of_each_box_are_marked(parts):
    arch, processor, maker = parts
    boxes = (SceneObject("key", Box(10, 10, 20, 20), 90), SceneObject("key", Box(12, 40, 110, 118), 90))
    turns = turns_of(maker, [boxes], [["key"]])
    answer = json.loads(answer_text("key", boxes, SQUARE, arch.frame(*SQUARE)))
    # From the first digit of y1 on, to the text that follows y2.
    wanted = "".join("{}, {}, {}".format(*a["bbox_2d"][1:]) + '], "label": "' for a in answer)
    assert processor.tokenizer.decode(turns.ids[0][turns.later[0]]) == wanted
    assert not turns_of(maker, [[KEY_LOW]], [["cup"]]).later.any()


def test_phrases_are_mostly_of_what_is_there_each_once(parts):
    rng = np.random.default_rng(0)
    picked = [parts[2].pick(rng, [KEY_LOW, KEY_HIGH, CUP], 4, absent_share=0.1) for _ in range(300)]
    assert all(len(p) == 2 for p in picked)
    asked = [phrase for p in picked for phrase in p]
    assert 0.06 < asked.count("teddy bear") / len(asked) < 0.14
    assert asked.count("key") == pytest.approx(asked.count("cup"), rel=0.2)


def test_colours_are_asked_for_where_they_tell_objects_apart_and_sometimes_ones_that_are_not_there(parts):
    maker, rng = parts[2], np.random.default_rng(0)
    assert set(maker.pick(rng, [RED, BLUE, KEY_LOW], 9, 0.0)) == {"cup", "red cup", "blue cup", "key"}
    assert set(maker.pick(rng, [RED, KEY_LOW], 9, 0.0)) == {"cup", "key"}
    assert [a.box for a in maker.true_answer("red cup", [BLUE, RED])] == [RED.box]
    assert len(maker.true_answer("cup", [BLUE, RED])) == 2
    absent = {phrase for _ in range(100) for phrase in maker.pick(rng, [RED, BLUE, KEY_LOW], 9, 1.0)}
    assert "teddy bear" in absent and "green cup" in absent and not absent & {"red cup", "blue cup", "cup", "green key"}


def test_no_more_phrases_than_wanted_and_something_absent_about_an_empty_picture(parts):
    rng = np.random.default_rng(0)
    assert len(parts[2].pick(rng, [KEY_LOW, CUP], 1, absent_share=0.0)) == 1
    assert parts[2].pick(rng, [], 3, absent_share=0.0) == ["cup"]


def test_a_crowd_of_one_category_is_not_asked_for(parts):
    crowd = [KEY_LOW] * (MOST_BOXES + 1)
    assert parts[2].pick(np.random.default_rng(0), [*crowd, CUP], 20, absent_share=0.0) == ["cup"]


def test_a_prefix_alone_is_causal(parts):
    alone = parts[2].no_question(2)
    assert alone.ids.shape == (2, len(parts[2].prefix.ids)) and (alone.labels == IGNORED).all()
    assert torch.equal(alone.mask[0, 0], torch.ones_like(alone.mask[0, 0]).tril())
