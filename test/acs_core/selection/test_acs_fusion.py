from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acs_core.artifacts.heads import Head, HeadFile
from acs_core.artifacts.identity import ModelIdentity
from acs_core.attention import AttentionRecord
from acs_core.geometry import Box
from acs_core.selection.registry import AcsFusion, BoxFusingSelector
from acs_core.types import Candidate

HEADS = HeadFile(ModelIdentity("m", "internvl", 1, 1), "heads", ((Head(0, 0),),) * 4)
A, B, C = (10, 20, 30, 40), (12, 20, 32, 40), (10, 24, 30, 44)
FAR = (200, 200, 210, 210)


def candidates(corners):
    return [Candidate(Box(*map(float, c)), "key", i, 0, (1, 3, 5, 7)) for i, c in enumerate(corners)]


def record(entropies, drawn=0):
    """Of candidates whose head has this entropy at all four coordinates."""
    seen = np.repeat(np.array(entropies, np.float32)[:, None], 4, axis=1)[..., None, None]
    return AttentionRecord(seen.reshape(-1, 4, 1, 1), None, (4, 4), num_responses=drawn)


def answer(corners, entropies):
    selector, made = AcsFusion(HEADS), candidates(corners)
    quality = selector.qualities(made, record(entropies), (300, 300))
    best = int(np.argmax(quality))
    order = sorted(range(len(made)), key=lambda i: -quality[i])
    return selector.fuse(best, order, made, quality).as_tuple(), best


@pytest.mark.parametrize(
    ("corners", "entropies", "expected"),
    [
        ([A], [1.0], A),
        ([A, A, FAR], [1.0, 1.0, 0.1], A),  # two that agree outweigh one with sharper attention
        ([A, FAR], [1.0, 0.5], FAR),  # among equals attention decides
        ([A, FAR], [0.5, 1.0], A),
        ([A, B], [1.0, 1.0], (11, 20, 31, 40)),  # those that agree are averaged, FAR is left out
        ([A, B, FAR], [1.0, 1.0, 1.0], (11, 20, 31, 40)),
    ],
)
def test_the_published_box(corners, entropies, expected):
    box, _ = answer(corners, entropies)
    assert box == pytest.approx(expected)


def test_it_makes_boxes():
    assert isinstance(AcsFusion(HEADS), BoxFusingSelector)


def test_nothing_to_choose_from():
    selector = AcsFusion(HEADS)
    assert selector.qualities([], record([]), (300, 300)).shape == (0,)
    assert selector.confidences([], record([]), (9, 9), np.zeros(0)).shape == (0,)


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        (2, (1.0 + 0.5) / 2),  # both responses say the same, attention is half as spread as it can be
        (4, (0.5 + 0.5) / 2),  # two more said nothing
        (0, (1.0 + 0.5) / 2),  # not known: those with a box
    ],
)
def test_confidence_counts_responses_without_a_box(drawn, expected):
    half = np.log(16) / 2
    found = AcsFusion(HEADS).confidences(candidates([A, A]), record([half, half], drawn), (9, 9), np.ones(2))
    assert found == pytest.approx([expected, expected])


def test_a_response_that_repeats_itself_agrees_once():
    first, again = candidates([A, A])
    twice = [first, Candidate(again.box, "key", 0, 1, (9, 11, 13, 15))]
    found = AcsFusion(HEADS).confidences(twice, record([0.0, 0.0], 4), (9, 9), np.ones(2))
    assert found == pytest.approx([(0.25 + 1.0) / 2] * 2)


def test_what_a_second_look_saw_counts_twice():
    both = [*candidates([A, A]), replace(candidates([FAR])[0], response=2, look=1)]
    found = AcsFusion(HEADS).qualities(both, record([1.0, 1.0, 1.0]), (300, 300))
    assert found == pytest.approx([0.5, 0.5, 0.5])


corner = st.integers(0, 50)
boxes = st.tuples(corner, corner, st.integers(1, 40), st.integers(1, 40)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@given(st.lists(st.tuples(boxes, st.floats(0, 2.7)), min_size=1, max_size=8))
def test_the_box_lies_among_those_that_agree_and_numbers_in_their_range(drawn):
    corners, entropies = [c for c, _ in drawn], [h for _, h in drawn]
    box, best = answer(corners, entropies)
    agreeing = np.array([c for c in corners if Box(*c).iou(Box(*corners[best])) >= 0.3])
    assert (agreeing.min(axis=0) - 1e-9 <= box).all() and (box <= agreeing.max(axis=0) + 1e-9).all()
    assert Box(*box).area > 0
    selector, seen = AcsFusion(HEADS), record(entropies, len(corners))
    quality = selector.qualities(candidates(corners), seen, (100, 100))
    confidence = selector.confidences(candidates(corners), seen, (9, 9), quality)
    assert ((quality >= 0) & (quality <= 1 + 1e-9)).all() and ((confidence >= 0) & (confidence <= 1 + 1e-9)).all()
