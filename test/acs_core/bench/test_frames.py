"""The coordinate frame is found from answers: scripted ones in every frame, and those of the embedded models."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from acs_core.artifacts.registry import ASSETS
from acs_core.bench import check_model
from acs_core.bench.check_model import check_frame
from acs_core.bench.cli import OBJECT as CLI_OBJECT
from acs_core.bench.frames import (
    OBJECT,
    SIZES,
    FrameQuestion,
    ask_frames,
    explain_frames,
    render_questions,
)
from acs_core.generation.candidates import parse_response
from acs_core.geometry import Box
from acs_core.image import read_image
from acs_core.lvlm import load_lvlm
from acs_core.lvlm.instruction import PROMPT
from acs_core.types import COORDINATE_FRAMES

FRAMES = COORDINATE_FRAMES[1:]
QUESTIONS = render_questions(((480, 200), (200, 480), (260, 200)))
FAMILY_FRAMES = {"internvl-tiles": "0-1000", "qwen2_5_vl": "resized"}


@pytest.fixture(scope="module", params=FAMILY_FRAMES)
def kind(request):
    return request.param


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    monkeypatch.setattr(check_model, "render_questions", lambda: QUESTIONS)


@pytest.fixture(scope="module")
def model(kind, model_folders):
    return load_lvlm(model_folders[kind], device="cpu")


def scripted(frame, error=0.0, text=None, before="", cut=None):
    """An ``ask`` that states the object in ``frame``, moved by ``error`` of its side; what a known model would say.

    ``text`` replaces the answer, ``before`` stands before it, and from ``cut`` on it is cut off.
    """
    truths = {question.image.tobytes(): question.truth for question in QUESTIONS}

    def ask(lvlm, image, phrase):
        height, width = image.shape[:2]
        resized = lvlm.prepare(image, phrase).input_size
        # Written out, not taken from the code under test.
        scale = {
            "0-1000": (1000 / width, 1000 / height),
            "resized": (resized[0] / width, resized[1] / height),
            "original": (1.0, 1.0),
            "0-1": (1 / width, 1 / height),
        }[frame]
        box = truths[image.tobytes()]
        shift = error * box.width
        corners = [(v + shift) * scale[i % 2] for i, v in enumerate(box.as_tuple())]
        digits = 3 if frame == "0-1" else None
        told = [round(v, digits) for v in corners]
        answer = f'[{{"bbox_2d": {told}, "label": "{phrase}"}}]' if text is None else text
        return f"{before}{answer.partition(cut)[0]}" if cut else f"{before}{answer}", not cut

    return ask


@pytest.mark.parametrize("error", [0.0, 0.1])
@pytest.mark.parametrize("frame", FRAMES)
def test_scripted_answers_are_explained_by_their_frame(model, kind, frame, error):
    check = check_frame(model, ask=scripted(frame, error))
    assert check.numbers["found"] == frame and check.numbers["assumed"] == FAMILY_FRAMES[kind]
    assumed = frame == FAMILY_FRAMES[kind]
    # acs reads 0-1 in every frame: test_a_model_that_states_shares_is_read_right
    assert check.passed == (assumed or frame == "0-1")
    best, second = check.numbers["fits"][:2]
    assert best["frame"] == frame and best["mean_iou"] > 0.5 and best["mean_iou"] - second["mean_iou"] > 0.3
    assert ("acs assumes that, too" in check.said) == assumed
    assert ("shares of the picture in any frame" in check.said) == (frame == "0-1")
    assert (f"load the model with coordinate_frame {frame}" in check.said) != check.passed


def test_a_model_that_states_shares_is_read_right(model):
    """What the verdict on 0-1 says, by the same way as in a call."""
    for question in QUESTIONS:
        ask = scripted("0-1")
        text, _ = ask(model, question.image, OBJECT)
        prompt = model.prepare(question.image, OBJECT)
        (stated,) = parse_response(text)
        assert model.to_pixels(prompt, stated.in_frame(prompt.frame_size)).iou(question.truth) > 0.7


def test_hits_are_boxes_of_an_iou_of_a_half(model):
    """An error of a quarter of the side is an IoU of 0.39: the frame is found, no box is a hit."""
    report = explain_frames(ask_frames(model, QUESTIONS, ask=scripted("original", 0.25)), "original")
    best = report.fits[0]
    assert (best.frame, report.found) == ("original", "original")
    assert 0.35 < best.mean_iou < 0.5 and best.hits == 0


EXAMPLES = re.findall(r"\[\d[^]]*\]", PROMPT)  # two boxes


@pytest.mark.parametrize(
    ("change", "answered"),
    [
        ({}, True),
        ({"before": f"such as {' '.join(EXAMPLES)}: "}, True),  # the prompt's own boxes
        ({"text": " ".join(EXAMPLES)}, False),
        ({"cut": "]"}, False),  # the fourth number may go on
        ({"cut": ', "label'}, True),
        ({"text": "12, 34, 56, 78"}, True),  # the whole answer
    ],
)
def test_boxes_are_those_of_a_call(model, change, answered):
    assert len(EXAMPLES) == 2
    plain = ask_frames(model, QUESTIONS[:1], ask=scripted("original"))[0].values
    (found,) = ask_frames(model, QUESTIONS[:1], ask=scripted("original", **change))
    expected = (12, 34, 56, 78) if change.get("text", "").startswith("12") else plain
    assert found.values == (expected if answered else None)


@pytest.mark.parametrize("frame", FRAMES)
def test_a_model_loaded_with_the_found_frame_passes(model, frame):
    told = replace(model, picture=replace(model.picture, coordinate_frame=frame))
    check = check_frame(told, ask=scripted(frame))
    assert check.passed and check.numbers["assumed"] == frame
    question = QUESTIONS[0]
    (answer, *_) = ask_frames(told, QUESTIONS, ask=scripted(frame))
    box = told.to_pixels(told.prepare(question.image, OBJECT), answer.values)
    assert box.iou(question.truth) > 0.7


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "only 0 of 6 answers have a box"),
        ('[{"bbox_2d": [1, 1, 9, 9], "label": "key"}]', "the model does not find the object"),
        ('[{"bbox_2d": [0, 0, 100000, 100000], "label": "key"}]', "the model does not find the object"),
    ],
)
def test_answers_without_the_object_decide_nothing(model, text, said):
    check = check_frame(model, ask=scripted("original", text=text))
    assert check.passed is None and check.numbers["found"] == "" and said in check.said


def test_frames_of_the_same_size_are_not_told_apart(model):
    answers = ask_frames(model, QUESTIONS, ask=scripted("original"))
    same = [replace(answer, input_size=answer.image_size) for answer in answers]
    report = explain_frames(same, "resized")
    assert report.found == "" and "resized and original explain the answers nearly equally well" in report.reason


def test_half_of_the_answers_may_have_no_box(model):
    answers = ask_frames(model, QUESTIONS, ask=scripted("0-1"))
    silent = [replace(answer, values=None) for answer in answers[:3]]
    assert explain_frames([*silent, *answers[3:]], "0-1").found == "0-1"
    assert explain_frames([*silent, replace(answers[3], values=None), *answers[4:]], "0-1").found == ""


@pytest.mark.parametrize(("name", "frame"), [("tiny-internvl", "0-1000"), ("tiny-qwen2.5-vl", "resized")])
def test_the_embedded_models_answer_in_the_frame_of_their_family(name, frame, repo):
    """They know drawings of their own world alone, so parts of the sample are asked about, not drawn stop signs."""
    picture = read_image(repo / "docs" / "sample.png")
    x1, y1, x2, y2 = json.loads((repo / "docs" / "sample.json").read_text())["boxes"]["umbrella"]
    parts = (0, 0, 480, 360), (60, 60, 420, 330), (100, 40, 400, 360), (150, 30, 470, 300), (40, 100, 440, 340)
    questions = [
        FrameQuestion(
            np.ascontiguousarray(picture[top:bottom, left:right]), Box(x1 - left, y1 - top, x2 - left, y2 - top)
        )
        for left, top, right, bottom in parts
    ]
    report = explain_frames(ask_frames(load_lvlm(ASSETS / name, device="cpu"), questions, "umbrella"), frame)
    assert report.found == frame, report.reason


def test_the_pictures_are_not_square_and_show_the_object_where_they_say():
    assert all(width != height for width, height in SIZES) and CLI_OBJECT == OBJECT
    for question in (*QUESTIONS, *render_questions(SIZES[:1])):
        red = (question.image[..., 0] > 180) & (question.image[..., 1] < 60)
        rows, columns = np.nonzero(red)
        found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        border = 0.05 * question.truth.width + 1
        assert np.abs(np.subtract(found, question.truth.as_tuple())).max() <= border
        middle = (question.image_size[0] / 2, question.image_size[1] / 2)
        assert not (question.truth.x1 < middle[0] < question.truth.x2)
