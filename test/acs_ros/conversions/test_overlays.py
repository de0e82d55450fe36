from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from acs_core.geometry import Box
from acs_core.types import Outcome
from acs_ros.conversions.overlays import DARK, WINNER, attention_picture, debug_picture

IMAGE = np.full((30, 40, 3), 120, np.uint8)


def with_attention(result, row: int, column: int):
    attention = np.zeros((3, 4), np.float32)
    attention[row, column] = 0.3
    return replace(result, attention=attention)


def has(picture: np.ndarray, color: tuple[int, int, int]) -> bool:
    return bool((picture == color).all(axis=2).any())


def warmth(picture: np.ndarray) -> np.ndarray:
    """How much redder than blue each pixel is."""
    return picture[:, :, 0].astype(int) - picture[:, :, 2]


@pytest.mark.parametrize(("row", "column"), [(0, 0), (2, 3), (1, 2)])
def test_the_heat_is_where_the_model_looked(result, row, column):
    picture = attention_picture(IMAGE, [with_attention(result("key", (40, 30)), row, column)])
    factor = picture.shape[1] // 40
    body = warmth(picture[-30 * factor :])
    y, x = np.unravel_index(np.argmax(body), body.shape)
    assert (y // (10 * factor), x // (10 * factor)) == (row, column)
    assert has(picture, WINNER), "the chosen box"


@pytest.mark.parametrize(("row", "column"), [(0, 0), (2, 3)])
def test_the_heat_of_a_region_is_in_it(result, row, column):
    given = with_attention(result("key", (40, 30)), row, column)
    given = replace(given, region=Box(20, 10, 32, 19), detections=(), candidates=())
    picture = attention_picture(IMAGE, [given])
    factor = picture.shape[1] // 40
    body = warmth(picture[-30 * factor :])
    y, x = np.unravel_index(np.argmax(body), body.shape)
    assert ((y // factor - 10) // 3, (x // factor - 20) // 3) == (row, column)
    assert not (body[:, : 20 * factor] > 100).any()


def test_without_attention_the_picture_says_so_and_stays_grey(result):
    for given in (result("key", (40, 30), reason="nothing there"), replace(result("key", (40, 30)), attention=None)):
        picture = attention_picture(IMAGE, [given])
        factor = picture.shape[1] // 40
        body = picture[-30 * factor :]
        assert not (warmth(body) > 100).any() or given.candidates
        assert picture[: 20 * factor].std() > 0, "words above"


def test_a_refused_box_is_not_drawn_as_a_winner(result):
    given = result("key", (40, 30))
    refused = tuple(replace(c, outcome=Outcome.BELOW_THRESHOLD) for c in given.candidates)
    picture = attention_picture(IMAGE, [replace(given, detections=(), candidates=refused)])
    assert not has(picture, WINNER)


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (3, 2, 2), (5, 3, 2)])
def test_several_phrases_stand_in_a_grid(result, count, columns, rows):
    one = debug_picture(IMAGE, [result("key", (40, 30))])
    grid = debug_picture(IMAGE, [result("key", (40, 30))] * count)
    assert grid.shape == (rows * one.shape[0], columns * one.shape[1], 3)
    np.testing.assert_array_equal(grid[: one.shape[0], : one.shape[1]], one)
    if columns * rows > count:
        assert (grid[-one.shape[0] :, -one.shape[1] :] == DARK).all()


def test_a_grid_of_large_pictures_is_made_smaller(result):
    large = np.zeros((1080, 1920, 3), np.uint8)
    grid = debug_picture(large, [result("key", (1920, 1080))] * 3)
    assert max(grid.shape) == 2400 and debug_picture(large, [result("key", (1920, 1080))]).shape[1] == 1920
