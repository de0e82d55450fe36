"""Answers that real models gave, or are documented to give, become the right candidates, with real token ids."""

import re
from collections import Counter
from types import SimpleNamespace

import pytest
from recorded_answers import real_tokenizer, recorded_answers
from transformers import InternVLConfig

from acs_core import types
from acs_core.generation.candidates import decode_with_tokens, find_candidates
from acs_core.generation.first_box import FirstBoxComplete
from acs_core.geometry import Box

ANSWERS = recorded_answers()
FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl")


def find(answer, ids=None):
    tokenizer = real_tokenizer(answer.family)
    lvlm = SimpleNamespace(tokenizer=tokenizer, to_pixels=lambda prompt, values: Box(*values))
    prompt = SimpleNamespace(image_size=answer.frame, frame_size=tuple(map(float, answer.frame)))
    finished = answer.finished or ids is not None
    samples = SimpleNamespace(response_ids=(ids or answer.ids,), finished=(finished,), broken=False)
    candidates, (response,) = find_candidates(lvlm, prompt, samples)
    return tokenizer, candidates, response


def end_of_first_box(answer):
    """Number of tokens after which the response ends where one object is asked for; None if it goes on to the end."""
    lvlm = SimpleNamespace(tokenizer=real_tokenizer(answer.family), to_pixels=lambda prompt, values: Box(*values))
    prompt = SimpleNamespace(image_size=answer.frame, frame_size=tuple(map(float, answer.frame)))
    is_complete = FirstBoxComplete(lvlm)
    return next((n for n in range(1, len(answer.ids) + 1) if is_complete(prompt, answer.ids[:n])), None)


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda a: f"{a.family}: {a.name}")
def test_a_response_that_ends_with_its_first_box_has_that_box(answer):
    """With its label and the tokens of its coordinates; a response without a box goes on to its end."""
    _, whole, _ = find(answer)
    end = end_of_first_box(answer)
    assert whole or end is None
    if end is not None:
        _, cut, response = find(answer, answer.ids[:end])
        assert cut == whole[:1] and response.finished


def test_most_responses_end_early():
    boxes = [answer for answer in ANSWERS if answer.boxes]
    assert sum(end_of_first_box(answer) is not None for answer in boxes) > 0.8 * len(boxes)
    several = [(end_of_first_box(a), len(a.ids)) for a in boxes if len(a.boxes) > 1]
    assert len(several) > 5 and sum(end or length for end, length in several) < 0.6 * sum(
        length for _, length in several
    )


def test_there_are_enough_of_every_family_each_with_a_source():
    assert len(ANSWERS) >= 60 and all(answer.source.startswith("https://") for answer in ANSWERS)
    counted = Counter(answer.family for answer in ANSWERS)
    assert all(counted[family] >= 6 for family in FAMILIES)
    assert sum(answer.recorded for answer in ANSWERS) >= 40


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda a: f"{a.family}: {a.name}")
def test_boxes_labels_and_problem(answer):
    _, candidates, response = find(answer)
    assert [c.label for c in candidates] == [label for _, label, _ in answer.boxes]
    found = [(c.box.x1, c.box.y1, c.box.x2, c.box.y2) for c in candidates]
    assert found == [pytest.approx(box) for _, _, box in answer.boxes]
    assert response.problem == (getattr(types, answer.problem.upper()) if answer.problem else "")


@pytest.mark.parametrize("answer", [a for a in ANSWERS if a.boxes], ids=lambda a: f"{a.family}: {a.name}")
def test_tokens_of_the_coordinates_are_those_of_their_first_digits(answer):
    tokenizer, candidates, response = find(answer)
    decoded = [tokenizer.decode(answer.ids[:i], skip_special_tokens=True) for i in range(len(answer.ids) + 1)]
    at = 0
    for candidate, (numbers, _, _) in zip(candidates, answer.boxes, strict=True):
        at = re.compile(r"[^0-9]+".join(map(re.escape, numbers))).search(response.text, at).start()
        for number, token in zip(numbers, candidate.coordinate_tokens, strict=True):
            at = response.text.index(number, at)
            # the first token after which the text holds the number's first character
            assert token == next(i for i in range(len(answer.ids)) if len(decoded[i + 1]) > at)
            # in these vocabularies every digit is a token of its own
            assert tokenizer.decode([answer.ids[token]]).strip(" ([,") == number[0]
            at += len(number)


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda a: f"{a.family}: {a.name}")
def test_the_vocabulary_was_made_for_these_answers(answer):
    """Otherwise: run tools/answer_vocabulary.py."""
    assert tuple(real_tokenizer(answer.family)(answer.text, add_special_tokens=False)["input_ids"]) == answer.ids
    text, tokens = decode_with_tokens(real_tokenizer(answer.family), answer.ids)
    assert text == real_tokenizer(answer.family).decode(answer.ids, skip_special_tokens=True)
    assert tokens == sorted(tokens)


def test_special_ids_are_the_published_ones():
    assert real_tokenizer("internvl").convert_tokens_to_ids("<IMG_CONTEXT>") == InternVLConfig().image_token_id
    assert real_tokenizer("qwen3_vl").convert_tokens_to_ids(["<|image_pad|>", "<|im_end|>", "7"]) == [
        151655,
        151645,
        22,
    ]
    assert real_tokenizer("qwen2_5_vl").convert_tokens_to_ids("<|box_start|>") == 151648
