"""Boxes are read out of whatever a model writes, and become candidates with the right tokens."""

from types import SimpleNamespace

import pytest
import tiny_models
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from acs_core import types
from acs_core.generation.candidates import decode_with_tokens, find_candidates
from acs_core.geometry import Box

APART = tiny_models.tokenizer(tiny_models.INTERNVL_TOKENS)
JOINED = tiny_models.tokenizer(tiny_models.INTERNVL_TOKENS, digits_apart=False)


def ids_of(tokenizer, text):
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def find(responses, tokenizer=APART, finished=None, size=(200, 100), **kwargs):
    """find_candidates on given texts (or token ids), frame 0-1000."""
    rows = tuple(r if isinstance(r, tuple) else ids_of(tokenizer, r) for r in responses)
    samples = SimpleNamespace(response_ids=rows, finished=finished or (True,) * len(rows), broken=False)
    scale = lambda prompt, v: Box(v[0] * 0.2, v[1] * 0.1, v[2] * 0.2, v[3] * 0.1)  # noqa: E731
    lvlm = SimpleNamespace(tokenizer=tokenizer, to_pixels=scale)
    return find_candidates(lvlm, SimpleNamespace(image_size=size, frame_size=(1000.0, 1000.0)), samples, **kwargs)


@pytest.mark.parametrize("tokenizer", [APART, JOINED], ids=["digits apart", "digits joined"])
def test_coordinate_tokens_hold_the_first_digit(tokenizer):
    text = '[{"bbox_2d": [15, 240, 350, 460], "label": "key"}, {"bbox_2d": [200, 150, 280, 220], "label": "dog"}]'
    (first, second), (response,) = find([text], tokenizer)
    ids = ids_of(tokenizer, text)
    for candidate, numbers in ((first, ["15", "240", "350", "460"]), (second, ["200", "150", "280", "220"])):
        for token, number in zip(candidate.coordinate_tokens, numbers, strict=True):
            before, upto = tokenizer.decode(ids[:token]), tokenizer.decode(ids[: token + 1])
            start = text.index(number)
            assert len(before) <= start < len(upto)
    assert first.box == Box(3.0, 24.0, 70.0, 46.0)
    assert (first.label, second.label) == ("key", "dog")
    assert (first.order, second.order) == (0, 1)
    assert (response.num_boxes, response.problem, response.text) == (2, "", text)


def test_joined_tokens_really_span_a_comma():
    assert any(
        tok.startswith(",") and tok[-1].isdigit() for tok in JOINED.convert_ids_to_tokens(ids_of(JOINED, ", 150"))
    )


def test_sign_begins_a_coordinate():
    (candidate,), _ = find(["[-15, 240, 350, 460]"])
    assert candidate.box.x1 == 0.0
    assert APART.decode(ids_of(APART, "[-15, 240, 350, 460]")[candidate.coordinate_tokens[0]]).endswith("-")


PROBLEMS = [
    ("[]", True, types.ABSENT),
    ("no key is visible", True, types.ABSENT),
    ("banana", True, types.UNPARSEABLE),
    ("", True, types.EMPTY),
    ('[{"bbox_2d": [1, 2, 3', False, types.CUT_OFF),
    ("[10, 20, 30, 4", False, types.CUT_OFF),  # 4 may have become 400
    ("[2000, 2000, 3000, 3000]", True, types.OUTSIDE),
    ("[300, 20, 100, 40]", True, types.OUTSIDE),
    ("[1e999, 2, 3, 4]", True, types.OUTSIDE),
    ("[200, 150, 280, 220], [350, 180, 420, 270]", True, types.ECHO),
    ('<points x1="100" y1="200" x2="300" y2="400" alt="key">key</points>', True, types.UNPARSEABLE),
    ("图中没有钥匙", True, types.ABSENT),
]


@pytest.mark.parametrize(("text", "finished", "problem"), PROBLEMS)
def test_problems_are_named(text, finished, problem):
    candidates, (response,) = find([text], finished=(finished,))
    assert candidates == ()
    assert (response.problem, response.num_boxes, response.finished) == (problem, 0, finished)


def test_shares_of_the_picture_are_scaled_by_the_frame():
    (candidate,), _ = find(["[0.25, 0.5, 0.75, 1.0]"])
    assert candidate.box == Box(50.0, 50.0, 150.0, 100.0)


def test_boxes_beside_the_examples_of_the_prompt_are_kept():
    (candidate,), (response,) = find(["[200, 150, 280, 220] [100, 100, 200, 200] [350, 180, 420, 270]"])
    assert candidate.box == Box(20.0, 10.0, 40.0, 20.0)
    assert (response.num_boxes, response.problem) == (1, "")


def test_boxes_are_clipped_and_numbered_per_response():
    candidates, responses = find(["[100, 100, 5000, 500]", "[]", "[-9, 0, 10, 10] [20, 20, 20, 30] [30, 30, 40, 40]"])
    assert [(c.response, c.order) for c in candidates] == [(0, 0), (2, 0), (2, 1)]
    assert candidates[0].box == Box(20.0, 10.0, 200.0, 50.0)
    assert [r.num_boxes for r in responses] == [1, 0, 2]


def test_number_of_boxes_is_bounded():
    assert len(find(["[10, 10, 20, 20] " * 9], max_boxes=4)[0]) == 4


def test_special_tokens_in_a_response_do_not_shift_tokens():
    ids = (*ids_of(APART, "[10, "), APART.start_image_token_id, *ids_of(APART, "20, 30, 40]"))
    (candidate,), (response,) = find([ids])
    assert response.text == "[10, 20, 30, 40]"
    expected = [ids.index(APART.convert_tokens_to_ids(d)) for d in "1234"]
    assert list(candidate.coordinate_tokens) == expected


@settings(max_examples=100)
@given(st.text(max_size=30))
def test_every_character_has_its_token(text):
    ids = ids_of(APART, text)
    assume(not set(ids) & APART.added_tokens_decoder.keys())  # they have no text of their own
    decoded, writers = decode_with_tokens(APART, ids)
    assert decoded == APART.decode(ids)
    assert len(writers) == len(decoded)
    assert writers == sorted(writers)
    for position, token in enumerate(writers):
        before = APART.decode(ids[:token]).rstrip("\ufffd")
        assert len(before) <= position


@settings(max_examples=100)
@given(st.lists(st.integers(0, 255), max_size=24))
def test_broken_bytes_do_no_harm(ids):
    decoded, writers = decode_with_tokens(APART, tuple(ids))
    assert len(writers) == len(decoded)
    assert all(0 <= w < len(ids) for w in writers)
    digits = [i for i, token in enumerate(ids) if APART.convert_ids_to_tokens(token).isdigit()]
    found = [w for c, w in zip(decoded, writers, strict=True) if c in "0123456789"]
    assert found == [i for i in digits if APART.convert_ids_to_tokens(ids[i]) in "0123456789"]
