from dataclasses import replace

import numpy as np
import pytest

from acs_core.geometry import Box
from acs_core.overlay import DARK, MAX_GRID, REFUSED, TRUTH, WINNER, draw_result, draw_results
from acs_core.selection.decision import decide
from acs_core.types import Candidate, GroundingResult, Response, ScoreKind

BOXES = [Box(20, 20, 40, 35), Box(21, 20, 41, 35), Box(100, 80, 120, 99)]


def result(boxes=BOXES, qualities=(0.9, 0.5, 0.3), size=(160, 120), kind=ScoreKind.CALIBRATED, **options):
    candidates = [Candidate(b, "key", i, 0, (1, 3, 5, 7)) for i, b in enumerate(boxes)]
    values = np.array(qualities[: len(boxes)])
    choice = decide(candidates, values, values, num_responses=max(1, len(boxes)), **options)
    responses = tuple(Response("", 1, True) for _ in boxes)
    phrase = options.get("phrase", "key")
    return GroundingResult(
        phrase, size, choice.detections, choice.candidates, responses, "acs-free", kind, "m", None, 1, choice.reason
    )


def grey(size=(160, 120)):
    return np.full((size[1], size[0], 3), 128, np.uint8)


def count(picture, color):
    return int((picture == np.array(color)).all(axis=-1).sum())


@pytest.mark.parametrize(
    ("size", "factor"), [((160, 120), 3), ((480, 100), 1), ((16, 16), 30), ((1920, 1080), 1), ((30, 500), 1)]
)
def test_small_pictures_are_enlarged_by_a_whole_factor(size, factor):
    drawn = draw_result(grey(size), result([], size=size))
    assert drawn.dtype == np.uint8
    assert drawn.shape[1] == size[0] * factor
    assert drawn.shape[0] > size[1] * factor
    assert (drawn[-1, -1] == 128).all()


@pytest.mark.parametrize(
    ("size", "phrases", "grid"),
    [
        ((480, 360), 2, (1, 2)),
        ((480, 360), 4, (2, 2)),
        ((480, 360), 5, (2, 3)),
        ((100, 500), 3, (3, 1)),
        ((1500, 1000), 9, (3, 3)),
        ((1920, 1080), 64, (7, 10)),
        ((30, 3000), 256, (128, 2)),
    ],
)
def test_several_phrases_are_drawn_in_a_grid_of_limited_size(size, phrases, grid):
    results = [replace(result([], size=size), timing_ms={"total": 5.0})] * phrases
    drawn = draw_results(np.full((size[1], size[0], 3), 128, np.uint8), results)
    height, width = drawn.shape[:2]
    assert max(height, width) <= MAX_GRID
    copies = (drawn == 128).all(axis=2)
    edges = [np.diff(np.concatenate([[False], copies.any(axis=axis), [False]]).astype(int)) for axis in (0, 1)]
    assert int((edges[1] == 1).sum()) == grid[1]  # rows of copies, between strips
    assert width % grid[0] == height % grid[1] == 0
    ratio = (width / grid[0]) / (copies.any(axis=1).sum() / grid[1])
    assert ratio == pytest.approx(size[0] / size[1], rel=0.1)


def test_boxes_of_reduced_copies_are_where_the_object_is():
    image = np.full((1000, 2000, 3), 128, np.uint8)
    box = Box(1200, 400, 1600, 800)
    drawn = draw_results(image, [result([box], size=(2000, 1000))] * 9)
    tile = drawn[: drawn.shape[0] // 3, : drawn.shape[1] // 3]
    strip = tile.shape[0] - round(tile.shape[1] / 2)
    green = (tile[strip:] == np.array(WINNER)).all(axis=2)
    rows, columns = (np.flatnonzero(green.sum(axis=axis) > 100) for axis in (1, 0))  # lines, not letters
    scale = tile.shape[1] / 2000
    found = np.array([columns.min(), rows.min(), columns.max(), rows.max()])
    assert scale < 1 and np.abs(found - np.array(box.as_tuple()) * scale).max() < 20


def test_one_phrase_is_drawn_as_it_is_with_its_time_and_several_without():
    timed = replace(result(), timing_ms={"total": 5.0})
    assert np.array_equal(draw_results(grey(), [timed]), draw_result(grey(), timed))
    untimed = draw_result(grey(), result())
    assert not np.array_equal(draw_result(grey(), timed), untimed)
    assert np.array_equal(draw_results(grey(), [timed] * 2), np.concatenate([untimed, untimed]))
    with pytest.raises(ValueError, match="one result per phrase, got none"):
        draw_results(grey(), [])


def test_the_picture_itself_is_left_alone():
    image = grey()
    draw_result(image, result(), BOXES)
    assert (image == 128).all()


@pytest.mark.parametrize(
    ("options", "present", "absent"),
    [
        ({}, (WINNER,), (TRUTH, REFUSED)),
        ({"min_score": 0.95}, (REFUSED,), (WINNER, TRUTH)),
        ({"multiple": True, "min_votes": 1}, (WINNER,), (TRUTH, REFUSED)),
    ],
)
def test_colours_tell_the_verdicts_apart(options, present, absent):
    drawn = draw_result(grey(), result(**options))
    assert all(count(drawn, color) > 20 for color in present)
    assert all(count(drawn, color) == 0 for color in absent)


def test_the_winner_is_thicker_than_the_losers_and_its_inside_stays_visible():
    image = grey((480, 360))
    drawn = draw_result(image, result([Box(60, 60, 100, 100), Box(300, 200, 340, 240)], size=(480, 360)))[-360:]
    assert (drawn[60:100, 60:100] == 128).all()
    row = drawn[80, 50:61]
    assert (row == np.array(WINNER)).all(axis=-1).sum() == 2
    loser = drawn[220, 290:301].astype(int)
    assert ((loser != 128).any(axis=-1)).sum() == 1
    assert loser[9, 2] > loser[9, 0] > 128  # a light blue over the grey


def test_truth_is_yellow_and_drawn_on_top():
    drawn = draw_result(grey(), result(), [BOXES[0]])
    assert count(drawn, TRUTH) > 100
    assert count(drawn, WINNER) > 20


@pytest.mark.parametrize("phrase", ["a" * 200, "ключ", "钥匙 🔑", "<|im_end|>[red]", "x"])
def test_any_phrase_fits_the_strip(phrase):
    plain = draw_result(grey(), result())
    drawn = draw_result(grey(), replace(result(), phrase=phrase))
    assert drawn.shape == plain.shape
    assert not np.array_equal(drawn, plain)


def test_the_strip_says_why_nothing_was_detected():
    said = draw_result(grey(), result(min_score=0.95))
    other = draw_result(grey(), result(min_score=0.91))
    strip = said.shape[0] - 3 * 120
    assert count(said[:strip], REFUSED) > 5 and count(said[:strip], WINNER) == 0
    assert not np.array_equal(said[:strip], other[:strip])


@pytest.mark.parametrize(
    "box", [Box(0, 0, 160, 120), Box(0, 0, 0.5, 0.5), Box(159.5, 119.5, 160, 120), Box(0, 60, 160, 61)]
)
def test_boxes_at_the_border_and_smaller_than_a_pixel(box):
    drawn = draw_result(grey(), result([box]), [box])
    assert count(drawn, WINNER) > 0


def test_labels_of_losers_are_written_where_there_is_room():
    far = draw_result(grey((480, 360)), result([Box(60, 60, 100, 100), Box(300, 200, 340, 240)], size=(480, 360)))
    above = far[-360:][175:199, 280:345]
    assert count(above, DARK) > 200
    near = draw_result(grey((480, 360)), result([Box(60, 60, 100, 100), Box(62, 60, 102, 100)], size=(480, 360)))
    assert count(near[-360:][110:, :], DARK) == 0  # the winner's label stands for its whole cluster


def test_without_score_the_quality_stands_at_the_winner():
    with_score = draw_result(grey(), result())
    without = draw_result(grey(), result(kind=ScoreKind.NONE))
    assert not np.array_equal(with_score, without)
