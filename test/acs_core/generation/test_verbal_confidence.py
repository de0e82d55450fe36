"""Confidences that responses state in words of their own, and the selector by them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acs_core.generation.candidates import parse_response
from acs_core.geometry import Box
from acs_core.lvlm.instruction import PROMPT
from acs_core.selection.baselines import VerbalConfidence
from acs_core.types import Candidate

BOX = "[10, 20, 30, 40]"


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        (f'[{{"bbox_2d": {BOX}, "label": "key", "confidence": 0.9}}]', [0.9]),
        (f'[{{"confidence": 0.25, "bbox_2d": {BOX}}}, {{"bbox_2d": {BOX}, "score": "0.75"}}]', [0.25, 0.75]),
        (f'[{{"bbox_2d": {BOX}, "confidence": 85}}, {{"bbox_2d": {BOX}}}]', [0.85, None]),
        (f'[{{"bbox_2d": {BOX}, "confidence_score": "70%"}}]', [0.7]),
        (f'{{"bbox_2d": {BOX}, "confidence": 1}}', [1.0]),
        (f'{{"bbox_2d": {BOX}, "confidence": 1%}}', [0.01]),
        (f'{{"bbox_2d": {BOX}, "confidence": 900}}', [None]),
        (f'{{"bbox_2d": {BOX}, "confidence": "high"}}', [None]),
        (f'{{"bbox_2d": {BOX}, "score": 8/10}}', [None]),
        (f'{{"bbox_2d": {BOX}, "confidence": 0.9, "score": 0.1}}', [0.9]),
        ("The key is at [10, 20, 30, 40] with confidence: 0.8.", [0.8]),
        ("key [10, 20, 30, 40], my confidence is 95 % here", [0.95]),
        ("confidence: 0.8. The key is at [10, 20, 30, 40]", [None]),
        (f"{BOX}{' and so on' * 20} confidence: 0.8", [None]),
        ("[10, 20, 30, 40, 0.95]", [0.95]),
        ("[[10, 20, 30, 40, 0.5], [50, 60, 70, 80, 1.0]]", [0.5, 1.0]),
        ('{"label": "key", "confidence": 0.9}', []),
        (f"key: {BOX}", [None]),
        ("", []),
    ],
)
def test_a_confidence_belongs_to_its_box(text, stated):
    assert [box.confidence for box in parse_response(text)] == stated


def test_the_prompt_states_none():
    assert {box.confidence for box in parse_response(PROMPT)} == {None}


@given(st.text(alphabet='{}[](),:."% 0123456789confidescrbx_2\n', max_size=200))
def test_any_text_gives_shares(text):
    assert all(box.confidence is None or 0 <= box.confidence <= 1 for box in parse_response(text))


def test_boxes_without_a_confidence_are_not_considered():
    candidates = [Candidate(Box(0, 0, 9, 9), "", r, 0, (0, 1, 2, 3), stated=c) for r, c in enumerate((0.4, None, 0.9))]
    found = VerbalConfidence().qualities(candidates, None, (10, 10))
    assert found.tolist()[::2] == [0.4, 0.9] and np.isnan(found[1])
